"""`tracer.open` on a trace that was written to disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tracer
from tracer.analysis.explain.postmortem import explain
from tracer.schema import TABLES
from tracer.trace import meta
from tracer.trace.write.writer import TraceWriter


@pytest.fixture
def path(page_cache_experiment: Any, tmp_path: Path) -> Path:
    described = meta.begin(command_line=["record"], cgroup_version=1, filters={}, probes={"oom": "hook"})
    writer = TraceWriter(tmp_path / "trace", described | {"page_size": 4096}, force=False)
    for name, rows in page_cache_experiment.recorded().items():
        writer.append(name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    writer.close("test")
    return tmp_path / "trace"


def test_open_gives_the_tables_that_were_written(page_cache_experiment: Any, path: Path) -> None:
    opened = tracer.open(path)
    (written,) = opened.explain()
    page_cache_experiment.meta |= {name: opened.meta[name] for name in ("cgroup_version", "memory")}
    (direct,) = explain(page_cache_experiment)
    assert written.to_dict() | {"quality": None} == direct.to_dict() | {"quality": None}
    assert opened.timeline(cgroup="web", every="1s")["cache_evicted_bytes"].sum() == 116 << 20
    assert [one.cgroup for one in opened.held_cgroups()] == ["/docker/4f2a"]
    assert set(opened.with_names(opened.pagecache)["comm"]) == {"python3"}


def test_open_without_a_trace_fails_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(tracer.TraceError) as refusal:
        tracer.open(tmp_path)
    assert "\n" not in str(refusal.value)


def test_import_of_the_package_does_not_load_pandas() -> None:
    """The recorder imports the package, and must not spend time on pandas and pyarrow."""
    script = "import sys, tracer; sys.exit(any(name in sys.modules for name in ('pandas', 'pyarrow', 'bcc')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
