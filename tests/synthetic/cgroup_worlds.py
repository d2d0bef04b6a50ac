"""Recordings of a minute: a tree of cgroups that come and go, and the changes of their memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from hypothesis import strategies as st

from tracer.schema import TABLES
from tracer.trace import arrow_columns
from tracer.trace.history.bases import SETTLED_NS

Rows = list[dict[str, Any]]

S: Final = 1_000_000_000
END_S: Final = 60
SHOWN: Final = ("anon", "file", "kernel", "shmem")


def table(name: str, rows: Iterable[dict[str, Any]]) -> pa.Table:
    unknown = dict.fromkeys(TABLES[name].names)
    return pa.Table.from_batches(
        [arrow_columns.rows_of(name, [unknown | row for row in rows])], schema=TABLES[name]
    )


def cgroup(number: int, parent: int | None, created: int | None = None, removed: int | None = None) -> Any:
    times = {"created": created, "removed": removed}
    in_ns = {name: None if value is None else value * S for name, value in times.items()}
    return {"cgroup_id": number, "parent_id": parent, "path": f"/{number}", "version": 2, **in_ns}


def charge(time_s: float, number: int, category: str, size: int, **read: int) -> dict[str, Any]:
    counts = {"pages": 0, "updates": 1}
    return {
        "time": int(time_s * S),
        "cgroup_id": number,
        "category": category,
        "bytes": size,
        **counts,
        **read,
    }


def sample(time_s: float, number: int, source: str = "periodic", **columns: int | None) -> dict[str, Any]:
    return {"time": int(time_s * S), "cgroup_id": number, "source": source, **columns}


def list_of(batches: Iterable[pa.RecordBatch]) -> Rows:
    return [row for batch in batches for row in batch.to_pylist()]


@dataclass
class World:
    """A recording of `END_S` seconds."""

    cgroups: Rows = field(default_factory=list)
    samples: Rows = field(default_factory=list)
    charges: Rows = field(default_factory=list)

    def members(self, number: int) -> set[int]:
        found = {number}
        for row in self.cgroups:  # parents come before their children
            if row["parent_id"] in found:
                found.add(row["cgroup_id"])
        return found

    def level(self, number: int, category: str, time_ns: int) -> int | None:
        """Return the level as the analysis finds it (`tracer.analysis.core.ledger.level`)."""
        starts = [row for row in self.samples if row["source"] == "start" and row["cgroup_id"] == number]
        if starts:
            base = starts[0].get(f"{category}_bytes")
        else:
            is_made = any(row["created"] is not None for row in self.cgroups if row["cgroup_id"] == number)
            base = 0 if is_made else None
        members = self.members(number)
        changes = (
            row["bytes"]
            for row in self.charges
            if row["cgroup_id"] in members and row["category"] == category and row["time"] <= time_ns
        )
        return None if base is None else base + sum(changes)


@st.composite
def worlds(draw: st.DrawFn, *, are_sampled: bool = False) -> World:
    """Draw a tree of cgroups, of which some exist before and some are removed, and changes of their memory.

    `are_sampled`: each that exists before has its whole `start` sample at the beginning, as in a recording.
    The pages of a removed cgroup may be freed any time later, but then nothing else happens to it.
    """
    world = World()
    seconds = st.integers(0, END_S)
    sizes = st.integers(1, 1000)
    lives: dict[int, tuple[int | None, int | None]] = {}
    for number in range(1, draw(st.integers(1, 7)) + 1):
        parent = draw(st.one_of(st.none(), st.integers(1, number - 1))) if number > 1 else None
        made, ends = (None, None) if parent is None else lives[parent]
        last_made = END_S if ends is None else ends  # nothing is made below what is gone
        created = draw(st.one_of(st.integers(made or 0, last_made), *([st.none()] if made is None else [])))
        removed = None
        if ends is not None or draw(st.booleans()):
            removed = draw(st.integers(created or 0, last_made))
        lives[number] = (created, removed)
        above = next((row["path"] for row in world.cgroups if row["cgroup_id"] == parent), "")
        world.cgroups.append(cgroup(number, parent, created, removed) | {"path": f"{above}/{number}"})
        if created is None and (are_sampled or draw(st.booleans())):
            values = sizes if are_sampled else st.one_of(st.none(), sizes)
            columns = {f"{name}_bytes": draw(values) for name in SHOWN}
            world.samples.append(sample(0 if are_sampled else draw(seconds), number, "start", **columns))
        own: Counter[str] = Counter()
        for _ in range(draw(st.integers(0, 6))):
            last = END_S if removed is None else removed
            time_s, name = draw(st.integers(created or 0, last)), draw(st.sampled_from(SHOWN))
            size = draw(sizes if removed is not None else st.integers(-1000, 1000))
            world.charges.append(charge(time_s, number, name, size))
            own[name] += size
        if removed is not None and draw(st.booleans()):
            freed = draw(st.integers(removed, END_S))
            world.charges += [
                charge(freed, number, name, -own[name]) for name in ("anon", "file") if own[name]
            ]
            late = min(removed + SETTLED_NS // S, freed)
            world.charges += [charge(late, number, name, -own[name]) for name in ("kernel",) if own[name]]
    world.charges.sort(key=lambda row: int(row["time"]))
    world.samples.sort(key=lambda row: int(row["time"]))
    return world


def between(rows: Rows, begin_s: int, end_s: int) -> Rows:
    return [row for row in rows if begin_s * S <= row["time"] < end_s * S]
