"""The same run at other limits: `whatif` returns one `WhatIf` for a cgroup."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from tracer.kernel.cgroups.containers import QosClass
from tracer.schema import UNLIMITED_BYTES

Outcome: TypeAlias = Literal["survives", "killed", "thrashes", "unknown"]

BytesRange: TypeAlias = tuple[int | None, int | None]
ShareRange: TypeAlias = tuple[float | None, float | None]

NOT_KNOWN: Final[tuple[None, None]] = (None, None)

_MOST_WIDTH: Final = 1.5
UNFLUSHED_BYTES: Final = 1 << 20
"""memory.stat may lack so much: a CPU adds its counts up when they are many (mm/memcontrol.c)."""


def is_wide(again: BytesRange) -> bool:
    """Return whether the upper end of a range is more than 1.5 times the lower one, or not known. The lower
    one counts as no less than `UNFLUSHED_BYTES`."""
    low, high = again
    return high is None or high > _MOST_WIDTH * max(low or 0, UNFLUSHED_BYTES)


@dataclass(frozen=True, slots=True)
class AtLimit:
    """The outcome at one limit, and its reason, a clause.

    "survives": no OOM kill; "thrashes": no OOM kill, and for a while, a third of the tasks' time or more is
    lost to memory that was evicted and is needed again (`explain.slowed`). `read_again_bytes`: the page cache
    that is evicted and read again over the whole run. `lost_share`: the share of the tasks' time that is lost
    over the whole run (`views.lost_time`), from 0 to 1. Both are (low, high); a bound that is not known is
    None.
    """

    limit_bytes: int
    swap_bytes: int | None
    outcome: Outcome
    why: str
    read_again_bytes: BytesRange = NOT_KNOWN
    lost_share: ShareRange = NOT_KNOWN
    resize: tuple[str, ...] | None = None
    """The words of the kubectl command that sets this limit on the running pod (`WhatIf.pod_limit`); None:
    there is no such command, or the outcome is "killed"."""


@dataclass(frozen=True, slots=True)
class PodLimit:
    """The pod of Kubernetes that has a limit. `container`: the container with the limit; None: the pod as a
    whole has it. `qos_class`: None if the path of the cgroup does not show it."""

    namespace: str
    pod: str
    container: str | None
    qos_class: QosClass | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The recorded run of a cgroup at other limits.

    `recorded_limit_bytes`: the last limit in the trace, `UNLIMITED_BYTES` if none was set, None if it was not
    read. Any limit below `killed_below_bytes` is known to lead to a kill, and any limit from
    `survives_from_bytes` to none; None: no such limit is known. `run` of `runs` is the life of the name.
    """

    cgroup: str
    container: str | None
    run: int
    runs: int
    recorded_limit_bytes: int | None
    killed_below_bytes: int | None
    survives_from_bytes: int | None
    limits: tuple[AtLimit, ...]
    peak_usage_bytes: int | None = None
    """The highest usage in the trace; None if it was never read."""
    pod_limit: PodLimit | None = None
    """None: the limit is of no pod, or the trace does not have the names."""

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `whatif --json` without the name of the trace; a limit that is not set is
        null."""
        recorded = self.recorded_limit_bytes
        is_limited = recorded is not None and recorded < UNLIMITED_BYTES
        return asdict(self) | {"recorded_limit_bytes": recorded if is_limited else None}
