"""Whether an allocation was confined to some of the machine's memory nodes, by the lines of kernels that
print no constraint."""

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
    """`nodemask=` of the line `X invoked oom-killer`, Linux 4.9 to 4.20.

    `is_of_policy`: Linux 4.11 to 4.18 printed it, which have two spaces after it. Linux 4.9 and 4.10 print
    the nodes of the task's cpuset where no policy is in force ("mm, oom: header nodemask is NULL when cpusets
    are disabled", v4.11).
    """

    nodes: str
    is_of_policy: bool


def parse(text: str) -> frozenset[int] | None:
    """The nodes of `0-1,3`; None where it is no such list."""
    nodes: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            return None
        nodes.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(nodes)


@dataclass(frozen=True, slots=True)
class Shown:
    """The nodes of which `Mem-Info:` has lines; the kernel leaves out those that are not allowed. `is_all`:
    whether the machine has no others; None: not known."""

    nodes: frozenset[int] = frozenset()
    is_all: bool | None = None


def confined(
    mask: Nodemask | None, cpuset: tuple[str, str] | None, release: str | None, shown: Shown
) -> Constraint | None:
    """`mempolicy`, or `unknown`: to some nodes, of a policy or of a cpuset; None: to none, by the log.

    `cpuset`: path and nodes. What allows all nodes of the machine confines nothing (constrained_alloc in
    mm/oom_kill.c).
    """
    mems = None if cpuset is None else parse(cpuset[1])
    allowed = None if mask is None else parse(mask.nodes)
    if mask is not None and allowed is not None and not (shown.is_all and shown.nodes <= allowed):
        is_policys = mask.is_of_policy or _is_of_policy(release) or (mems is not None and mems != allowed)
        if is_policys:
            return "mempolicy" if _is_less(allowed, mems, shown) else "unknown"
    return "unknown" if mems is not None and not shown.nodes <= mems else None


def _is_less(allowed: frozenset[int], mems: frozenset[int] | None, shown: Shown) -> bool:
    """Whether these nodes are for sure not all of the machine."""
    is_outside = shown.is_all is False or not shown.nodes <= allowed
    return is_outside or _ALWAYS_A_NODE not in allowed or (mems is not None and allowed < mems)


def _is_of_policy(release: str | None) -> bool:
    found = None if release is None else _RELEASE.match(release)
    return found is not None and (int(found[1]), int(found[2])) >= _OF_POLICY_SINCE
