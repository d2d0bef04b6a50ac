"""What is shown of a cgroup: levels of now, and rates since the last interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A cgroup at one moment. A number is None if it is not known.

    `name` is the container, else the last name of `path`; both are as the kernel gave them, so they are
    hostile. All numbers contain the cgroups below. `limit_bytes` is the least limit that applies, None also
    if there is none, and `limit_owner` the path of the cgroup that has it.

    `held_bytes` is what is not page cache, so that reclaim cannot simply drop it, and `cache_bytes` the page
    cache: they add up to `usage_bytes`. `layers` has the bytes of each layer of a picture
    (`tracer.categories.LAYERS`). `cushion_bytes` is what may still be charged before a kill, and `kill_s`
    when that will be used up at the present rate; None: not in sight.

    Rates are of the last interval. `charge_rate` leaves out memory that is freed within 10 ms, such as cache
    that is evicted as fast as it comes; `add_rate` has all page cache that came. `stall_percent` is the share
    of the interval that tasks spent in reclaim, summed over tasks: it can exceed 100. `psi_percent` is the
    share in which at least one task waited for memory.
    `kills` are those at its limit since the start.
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
        """Return the row for JSON; `limit_bytes` is null also if there is no limit."""
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
    """A row whose other numbers are worked out when one of them is first asked for: most rows are not in
    view.
    """

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
        """Return a number that is asked for the first time: a slot that is not set leads here."""
        if name not in _NUMBERS:
            raise AttributeError(name)
        whole = self._work_out()
        for one in _NUMBERS:
            object.__setattr__(self, one, getattr(whole, one))
        object.__setattr__(self, "_work_out", None)  # it holds the state of all cgroups
        return getattr(whole, name)


_NUMBERS = frozenset(one.name for one in fields(LiveRow)) - {
    "cgroup_id",
    "parent_id",
    "path",
    "name",
    "usage_bytes",
}
