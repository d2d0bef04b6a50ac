"""The numbers of a cgroup in the list: current levels, and rates since the snapshot before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final

from tracer.categories import PARTS
from tracer.kernel.cgroups.containers import shown_name
from tracer.live.now import CgroupNow, Moment
from tracer.live.quantity_values import numbers_of
from tracer.live.sample_arrays import UNKNOWN
from tracer.quantities import TOP_COLUMNS


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A cgroup at one moment. A number is None if it is not known.

    `name` is the container, else the last name of `path`. Both are not escaped, and may be hostile. All
    numbers include the cgroups below. `limit_owner` is the path of the cgroup that has the least limit.

    `numbers` has key -> number for the columns (`tracer.quantities.TOP_COLUMNS`): levels, and rates over the
    last interval. `layers` has the bytes of each layer of a picture (`tracer.categories.LAYERS`).
    `kills` counts the kills at the cgroup's limit since the start. `usages` are the usages of past moments.
    """

    cgroup_id: int
    parent_id: int | None
    path: str
    name: str
    usage_bytes: int | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    limit_owner: str | None = None
    kills: int = 0
    layers: Mapping[str, int] = field(default_factory=dict)
    usages: tuple[float | None, ...] = ()

    def number(self, key: str) -> float | None:
        """Return the number of a column."""
        return self.usage_bytes if key == "usage" else self.numbers.get(key)

    def document(self) -> dict[str, Any]:
        """Return the row for JSON. Without a limit, `limit_bytes` is null, as if it were not known."""
        found: dict[str, Any] = {"cgroup": self.path, "cgroup_id": self.cgroup_id, "name": self.name}
        beside: dict[str, dict[str, Any]] = {
            "limit": {"limit_owner": self.limit_owner},
            "cache": {"composition_bytes": dict(self.layers)},
        }
        for _, column in TOP_COLUMNS:
            found |= {column.field: self.number(column.key)} | beside.get(column.key, {})
        return found | {"kills": self.kills}


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


_MOST_USAGES: Final = 30
"""The number of past usages of a cgroup that are kept for its sparkline."""


class NowRows:
    """Makes the rows of each moment, by comparing it with the moment before."""

    def __init__(self) -> None:
        self._before: Moment | None = None
        self._usages: dict[int, deque[float | None]] = {}

    def take(self, moment: Moment, elapsed_s: float) -> tuple[LiveRow, ...]:
        """Return the rows of a moment, `elapsed_s` after the last moment. Rates of new cgroups are None."""
        rows = []
        usages: dict[int, deque[float | None]] = {}
        for number, latest in zip(moment.ids, moment.latest("usage_bytes").tolist(), strict=True):
            usage = None if latest == UNKNOWN else latest
            past = self._usages.get(number) or deque(maxlen=_MOST_USAGES)
            past.append(usage)
            usages[number] = past
            names = moment.names(number)
            rows.append(
                AwaitedRow(
                    cgroup_id=number,
                    parent_id=names.parent_id,
                    path=names.path,
                    name=shown_name(names.path, names.container, names.pod),
                    usage_bytes=usage,
                    work_out=partial(_row_at, number, moment, self._before, elapsed_s, tuple(past)),
                )
            )
        self._before = moment
        self._usages = usages
        return tuple(rows)


def _row_at(
    cgroup_id: int,
    moment: Moment,
    before: Moment | None,
    elapsed_s: float,
    usages: tuple[float | None, ...],
) -> LiveRow:
    earlier = None if before is None else before.get(cgroup_id)
    return _row(moment.cgroup(cgroup_id), earlier, elapsed_s, usages)


def _row(
    now: CgroupNow, before: CgroupNow | None, elapsed_s: float, usages: tuple[float | None, ...]
) -> LiveRow:
    return LiveRow(
        cgroup_id=now.cgroup_id,
        parent_id=now.parent_id,
        path=now.path,
        name=shown_name(now.path, now.container, now.pod),
        usage_bytes=now.usage_bytes,
        numbers=numbers_of(now, before, elapsed_s),
        limit_owner=now.limit_owner,
        kills=now.kills,
        layers=_layers(now.parts),
        usages=usages,
    )


def _layers(parts: Mapping[str, int | None]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in PARTS:
        sums[part.layer] = sums.get(part.layer, 0) + (parts.get(part.name) or 0)
    return sums
