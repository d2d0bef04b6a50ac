"""The numbers of a cgroup in the list: current levels, and rates of the last interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A cgroup at one moment. A number is None if it is not known.

    `name` is the container, else the last name of `path`. Both are not escaped, and may be hostile. All
    numbers include the cgroups below. `limit_bytes` is the least limit that applies; None: there is no limit,
    or it is not known. `limit_owner` is the path of the cgroup that has this limit.

    `held_bytes` is the memory other than page cache, which reclaim cannot simply drop. `cache_bytes` is the
    page cache. The two add up to `usage_bytes`. `layers` has the bytes of each layer of a picture
    (`tracer.categories.LAYERS`). `cushion_bytes` is the memory that can still be charged before a kill, and
    `kill_s` the time until it is used up at the present rate; None: no kill is in sight.

    Rates cover the last interval. `charge_rate` leaves out memory that is freed within 10 ms, such as cache
    that is evicted as fast as it is added; `add_rate` includes all added page cache. `stall_percent` is the
    share of the interval that tasks spent in reclaim, summed over tasks: it can exceed 100. `psi_percent` is
    the share in which at least one task waited for memory. `kills` counts the kills at the cgroup's limit
    since the start.
    """

    cgroup_id: int
    parent_id: int | None
    path: str
    name: str
    usage_bytes: int | None = None
    limit_bytes: int | None = None
    limit_owner: str | None = None
    held_bytes: int | None = None
    cache_bytes: int | None = None
    cushion_bytes: int | None = None
    swap_bytes: int | None = None
    charge_rate: float | None = None
    add_rate: float | None = None
    evict_rate: float | None = None
    refault_rate: float | None = None
    stall_percent: float | None = None
    psi_percent: float | None = None
    kill_s: float | None = None
    kills: int = 0
    layers: Mapping[str, int] = field(default_factory=dict)
    usages: tuple[float | None, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the row for JSON. Without a limit, `limit_bytes` is null, as if it were not known."""
        return {
            "cgroup": self.path,
            "cgroup_id": self.cgroup_id,
            "name": self.name,
            "usage_bytes": self.usage_bytes,
            "limit_bytes": self.limit_bytes,
            "limit_owner": self.limit_owner,
            "held_bytes": self.held_bytes,
            "cache_bytes": self.cache_bytes,
            "composition_bytes": dict(self.layers),
            "cushion_bytes": self.cushion_bytes,
            "swap_bytes": self.swap_bytes,
            "charge_bytes_per_s": self.charge_rate,
            "add_bytes_per_s": self.add_rate,
            "evict_bytes_per_s": self.evict_rate,
            "refault_bytes_per_s": self.refault_rate,
            "reclaim_stall_percent": self.stall_percent,
            "psi_some_percent": self.psi_percent,
            "seconds_to_kill": self.kill_s,
            "kills": self.kills,
        }


class AwaitedRow(LiveRow):
    """A row that computes most of its numbers when one of them is first read: most rows are not in view."""

    __slots__ = ("_work_out",)

    def __init__(
        self,
        *,
        cgroup_id: int,
        parent_id: int | None,
        path: str,
        name: str,
        usage_bytes: int | None,
        work_out: Callable[[], LiveRow],
    ) -> None:
        for field_name, value in (
            ("cgroup_id", cgroup_id),
            ("parent_id", parent_id),
            ("path", path),
            ("name", name),
            ("usage_bytes", usage_bytes),
            ("_work_out", work_out),
        ):
            object.__setattr__(self, field_name, value)

    def __getattr__(self, name: str) -> Any:
        """Compute all numbers, and return the one that is read. Python calls this for an unset slot."""
        if name not in _NUMBERS:
            raise AttributeError(name)
        whole = self._work_out()
        for one in _NUMBERS:
            object.__setattr__(self, one, getattr(whole, one))
        object.__setattr__(self, "_work_out", None)  # it keeps the state of all cgroups in memory
        return getattr(whole, name)


_NUMBERS = frozenset(one.name for one in fields(LiveRow)) - {
    "cgroup_id",
    "parent_id",
    "path",
    "name",
    "usage_bytes",
}
