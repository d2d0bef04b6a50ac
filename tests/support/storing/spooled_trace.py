"""A trace as a spool has it: a valid meta.json, and files that are only bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from tracer.trace.meta import begin

FILES: Final = {
    "charge.parquet": b"c" * 3001,
    "pagecache/000001.parquet": b"p" * 5003,
    "pagecache/000002.parquet": b"q" * 77,
    "oom.parquet": b"",
}


def write_spooled(
    path: Path,
    *,
    start_ns: int = 1,
    ended: str | None = "2026-11-27T00:00:05.000000+00:00",
    files: dict[str, bytes] | None = None,
    age_s: float = 3600.0,
) -> Path:
    """Write a trace that began at `start_ns` and was last changed `age_s` ago; return its path."""
    meta: dict[str, Any] = dict(
        begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
    )
    meta |= {"boot_id": "b", "clock": {"monotonic_ns": start_ns, "realtime_ns": start_ns}, "started": "s"}
    meta["ended"] = ended
    path.mkdir(parents=True)
    for name, content in {
        **(FILES if files is None else files),
        "meta.json": json.dumps(meta).encode(),
    }.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)
        changed_ns = (path / name).stat().st_mtime_ns - round(age_s * 1e9)
        os.utime(path / name, ns=(changed_ns, changed_ns))
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Return path in the folder -> content of each file."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
