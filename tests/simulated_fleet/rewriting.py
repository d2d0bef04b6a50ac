"""A recorded trace as another one: on another host, at another time, in a container, with larger amounts.

Amounts are multiplied by a whole number, so that what adds up in the recording adds up in the copy. Process
ids stay: they are in the text of the kernel log. Its amounts are text too, so a scaled copy has no log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.categories import RECLAIM_COUNTS, WORKINGSET_ITEMS
from tracer.schema import TIME, UNLIMITED_BYTES

_PAGES: Final = frozenset(
    {"pages", "bytes", "nr_pages", "index", "badness", "scanned", "reclaimed", "pgscan", "pgsteal"}
    | {*RECLAIM_COUNTS, *WORKINGSET_ITEMS}
    | {f"{count}_{lru}" for count in (*RECLAIM_COUNTS, "scanned", "reclaimed") for lru in ("anon", "file")}
)
"""Columns with amounts, besides those whose names end in `_bytes`."""
_ROOT_ID: Final = 1


@dataclass(frozen=True)
class Place:
    """The machine and the time of a copy's recording. Times are CLOCK_REALTIME in ns."""

    host: str
    boot_id: str
    booted_ns: int
    begin_ns: int
    namespace: str
    pod: str
    pod_uid: str
    container: str
    container_id: str
    image: str
    scale: int
    first_cgroup_id: int
    """Added to the ids of the recording: a cgroup of its own for each copy."""

    @property
    def cgroup(self) -> str:
        """Return the path of the container's cgroup."""
        return f"/kubepods/burstable/pod{self.pod_uid}/{self.container_id}"


class Recording:
    """A recorded trace, read once."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.tables = {path.stem: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))}
        self.cgroup: str = self.meta["filters"]["cgroups"][0]

    def write(self, folder: Path, place: Place) -> None:
        """Write the copy as a finished trace into a new folder."""
        folder.mkdir(parents=True)
        clock = self.meta["clock"]
        real_ns = place.begin_ns - clock["realtime_ns"]
        monotonic_ns = place.begin_ns - place.booted_ns - clock["monotonic_ns"]
        tables = {
            name: self._table(name, table, place, real_ns, monotonic_ns)
            for name, table in self.tables.items()
        }
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        rows = {name: tables[name].num_rows for name in self.meta["rows"]}
        meta = self._meta(place, real_ns, monotonic_ns) | {"rows": rows}
        (folder / "meta.json").write_text(json.dumps(meta, indent=2))

    def _table(self, name: str, table: pa.Table, place: Place, real_ns: int, monotonic_ns: int) -> pa.Table:
        if name == "kernel_log" and place.scale != 1:
            table = table.slice(0, 0)
        for index, field in enumerate(table.schema):
            change = self._change(name, field, place, real_ns, monotonic_ns)
            if change is not None:
                table = table.set_column(index, field, change(table.column(index)))
        return self._named(table, place) if name == "cgroups" else table

    def _change(
        self, table: str, field: pa.Field, place: Place, real_ns: int, monotonic_ns: int
    ) -> Callable[[pa.ChunkedArray], pa.ChunkedArray] | None:
        """Return what to do with a column, None for nothing."""
        if field.type == TIME:
            return lambda column: pc.add(column.cast(pa.int64()), real_ns).cast(TIME)
        if field.name in ("ktime_ns", "start_ns"):
            return lambda column: pc.add(column, monotonic_ns)
        if field.name.endswith("cgroup_id") or field.name == "parent_id":
            return lambda column: _moved(column, place.first_cgroup_id)
        if field.name in ("path", "text"):
            return lambda column: pc.replace_substring(column, self.cgroup, place.cgroup)
        is_amount = field.name in _PAGES or field.name.endswith("_bytes")
        if is_amount and place.scale != 1 and pa.types.is_integer(field.type):
            return lambda column: _scaled(column, place.scale)
        return None

    def _named(self, table: pa.Table, place: Place) -> pa.Table:
        """Return the rows of `cgroups`, with the names of the container for its cgroup and those in it."""
        paths = table.column("path").to_pylist()
        is_inside = [path == place.cgroup or path.startswith(f"{place.cgroup}/") for path in paths]
        names = {
            "runtime": "containerd",
            "container_id": place.container_id,
            "container": place.container,
            "pod": place.pod,
            "namespace": place.namespace,
            "image": place.image,
        }
        for name, value in names.items():
            column = pa.array([value if inside else None for inside in is_inside], pa.string())
            at = table.schema.get_field_index(name)
            table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
        return table

    def _meta(self, place: Place, real_ns: int, monotonic_ns: int) -> dict[str, Any]:
        meta = self.meta
        memory = {
            name: value * place.scale if name.endswith("_bytes") else value
            for name, value in meta["memory"].items()
        }
        filters = meta["filters"] | {
            "cgroups": [path.replace(self.cgroup, place.cgroup) for path in meta["filters"]["cgroups"]],
            **{
                name: value * place.scale
                for name in ("limit_bytes", "swap_bytes")
                if (value := meta["filters"].get(name)) is not None
            },
        }
        log = {} if place.scale == 1 else {"kernel_log": "amounts of this trace are scaled"}
        return meta | {
            "host_name": place.host,
            "boot_id": place.boot_id,
            "clock": {
                "monotonic_ns": meta["clock"]["monotonic_ns"] + monotonic_ns,
                "realtime_ns": place.begin_ns,
            },
            "started": _moved_time(meta["started"], real_ns),
            "ended": _moved_time(meta["ended"], real_ns),
            "memory": memory,
            "filters": filters,
            **log,
        }


def _moved(column: pa.ChunkedArray, offset: int) -> pa.ChunkedArray:
    return pc.if_else(pc.greater(column, _ROOT_ID), pc.add(column, offset), column)


def _scaled(column: pa.ChunkedArray, factor: int) -> pa.ChunkedArray:
    """Return the amounts times a factor; "no limit" stays what it is."""
    is_amount = pc.less(column, UNLIMITED_BYTES)
    return pc.if_else(is_amount, pc.multiply(pc.if_else(is_amount, column, 0), factor), column)


def _moved_time(text: str, offset_ns: int) -> str:
    moment = datetime.fromisoformat(text).timestamp() + offset_ns / 1e9
    return datetime.fromtimestamp(moment, UTC).isoformat()
