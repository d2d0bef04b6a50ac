"""Recorded traces as a later trace of `watch` would have them: their rows thinned."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import tracer
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of
from tracer.trace.history.thinning import summed_rows, thin


def thinned_copy(trace: Path, folder: Path, every_ms: int) -> Path:
    """Write a copy of a trace, all of whose rows are kept one in `every_ms`, and return its path."""
    folder.mkdir()
    meta = json.loads((trace / "meta.json").read_text())
    clock = meta["clock"]
    read = tracer.open(trace)
    tables = {name: read.table(name) for name in TABLES if (trace / f"{name}.parquet").exists()}
    kills = sorted(set(tables["oom"].column("time").cast(pa.int64()).to_pylist()))
    for name, data in tables.items():
        few = thin(
            name,
            data.unify_dictionaries(),
            every_ms * 1_000_000,
            origin_ns=clock["realtime_ns"] - clock["monotonic_ns"],
            cuts=kills,
        )
        pq.write_table(few, folder / f"{name}.parquet")
        if name == "pagecache":
            pq.write_table(
                pa.Table.from_batches([rows_of("summed", summed_rows([few]))]), folder / "summed.parquet"
            )

    stages = [{"begin": meta["started"], "every_ms": every_ms}]
    meta["history"] = {"keep_s": 300.0, "reason": "kill", "fineness": stages}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder
