"""The memory nodes to which an allocation was confined, by the lines of kernels that print no constraint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tracer.kernel.kmsg.report.log_report import Constraint

_RANGE: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_RELEASE: Final = re.compile(r"(\d{1,3})\.(\d{1,4})")
_OF_POLICY_SINCE: Final = (4, 11)
_ALWAYS_A_NODE: Final = 0


@dataclass(frozen=True, slots=True)
class Nodemask:
    """`nodemask=` of the line `X invoked oom-killer`, which v4.9 to v4.20 print.

    `is_of_policy`: the line was printed by v4.11 to v4.18, which print two spaces after the nodes. Without a
    memory policy, v4.9 and v4.10 print the nodes of the task's cpuset; v4.11 and later do not, since "mm,
    oom: header nodemask is NULL when cpusets are disabled".
    """

    nodes: str
    is_of_policy: bool


def parse(text: str) -> frozenset[int] | None:
    """Return the nodes of a list such as `0-1,3`; None if the text is not a list of nodes."""
    nodes: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            return None
        nodes.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(nodes)


@dataclass(frozen=True, slots=True)
class Shown:
    """The nodes that have lines after `Mem-Info:`; the kernel prints the allowed nodes only.

    `is_all`: the machine has no other nodes; None: not known.
    """

    nodes: frozenset[int] = frozenset()
    is_all: bool | None = None


def confined(
    mask: Nodemask | None, cpuset: tuple[str, str] | None, release: str | None, shown: Shown
) -> Constraint | None:
    """Return the constraint of an allocation that was confined to some nodes; None if the log shows no such
    confinement.

    The result is `mempolicy` for a memory policy, and `unknown` if a policy or a cpuset confined it. `cpuset`
    is (path, nodes). A mask or cpuset of all nodes of the machine confines nothing (constrained_alloc,
    mm/oom_kill.c).
    """
    mems = None if cpuset is None else parse(cpuset[1])
    allowed = None if mask is None else parse(mask.nodes)
    if mask is not None and allowed is not None and not (shown.is_all and shown.nodes <= allowed):
        is_by_policy = mask.is_of_policy or _is_of_policy(release) or (mems is not None and mems != allowed)
        if is_by_policy:
            return "mempolicy" if _is_less(allowed, mems, shown) else "unknown"
    return "unknown" if mems is not None and not shown.nodes <= mems else None


def _is_less(allowed: frozenset[int], mems: frozenset[int] | None, shown: Shown) -> bool:
    """Return whether these nodes are certainly only a part of the machine's nodes."""
    is_outside = shown.is_all is False or not shown.nodes <= allowed
    return is_outside or _ALWAYS_A_NODE not in allowed or (mems is not None and allowed < mems)


def _is_of_policy(release: str | None) -> bool:
    found = None if release is None else _RELEASE.match(release)
    return found is not None and (int(found[1]), int(found[2])) >= _OF_POLICY_SINCE
