"""What has been read of some traces, and the union of several of these.

The columns are those that the answer needs. Rows of one boot may be of several traces that tell of the same
kill or life. `once` leaves one of them, which takes all rows of a boot. `closed` then adds up what evictors
did. After that, states of different boots are united by putting their rows together, so neither split nor
order changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from tracer.fleet.summary.overlaps import conform, merged
from tracer.fleet.summary.summaries import SUMMARIES

READ: Final = ("sources", "kills", "lives", "evictors")
"""The summary tables that the answer needs."""

_LEFT_OUT: Final[Mapping[str, frozenset[str]]] = {
    "lives": frozenset({"date", "namespace", "pod", "container", "container_id", "image"}),
    "kills": frozenset({"date", "pod", "container_id", "image", "kmsg", "trigger_comm"}),
}
_OF_A_PAIR: Final = ("host", "owner_workload", "evictor_workload", "cause")
_EVICTED: Final = ("evicted_bytes", "refaulted_bytes")


def _schema(name: str) -> pa.Schema:
    left_out = _LEFT_OUT.get(name, frozenset())
    return pa.schema([field.with_nullable(True) for field in SUMMARIES[name] if field.name not in left_out])


SCHEMAS: Final = {name: _schema(name) for name in READ}
"""Table -> its columns in a state whose boots are not closed."""

_PAIRS: Final = pa.schema([SCHEMAS["evictors"].field(name) for name in (*_OF_A_PAIR, *_EVICTED)])


@dataclass(frozen=True, slots=True)
class Broken:
    """What was left out, and why, in one line."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Partial:
    """Rows of the tables of `READ`. After `closed`, `evictors` has a row for each host, pair and cause."""

    sources: pa.Table
    kills: pa.Table
    lives: pa.Table
    evictors: pa.Table
    broken: tuple[Broken, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Return the memory of the rows."""
        return sum(int(getattr(self, name).nbytes) for name in READ)


def of_tables(tables: Mapping[str, pa.Table]) -> Partial:
    """Return the state of summary tables; the boots in it are not closed."""
    return Partial(**{name: conform(tables[name], name).select(SCHEMAS[name].names) for name in READ})


def nothing(*broken: Broken) -> Partial:
    """Return the state of no trace."""
    return Partial(**{name: schema.empty_table() for name, schema in SCHEMAS.items()}, broken=broken)


def union(states: Iterable[Partial]) -> Partial:
    """Return the rows of all states, which must be all closed or none of them."""
    given = list(states)
    tables = {name: [table for state in given if (table := getattr(state, name)).num_rows] for name in READ}
    return Partial(
        **{
            name: pa.concat_tables(found).combine_chunks() if found else SCHEMAS[name].empty_table()
            for name, found in tables.items()
        },
        broken=tuple(one for state in given for one in state.broken),
    )


def once(state: Partial) -> Partial:
    """Return the state with each kill, life and eviction once; it must have all rows of its boots."""
    found = merged({name: getattr(state, name) for name in READ})
    return replace(of_tables(found), broken=state.broken)


def closed(state: Partial) -> Partial:
    """Return a state that has each row once with the sums of its evictors."""
    pairs = state.evictors.group_by(list(_OF_A_PAIR)).aggregate([(name, "sum") for name in _EVICTED])
    pairs = pairs.rename_columns([name.removesuffix("_sum") for name in pairs.column_names])
    return replace(state, evictors=pairs.select(_PAIRS.names).cast(_PAIRS))
