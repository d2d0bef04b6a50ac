"""A trace of the page-cache experiment on disk, made from round numbers by the recorder's writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from synthetic.unset import unset_row

from tracer.enumerations import CATEGORY
from tracer.schema import MEMORY_STAT_BYTES, TABLES
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

MIB = 1 << 20
LIMIT = 100 * MIB
START_NS = 1_764_000_000_000_000_000
STEP_NS = 10_000_000
READ, GROW = 117, 99  # MiB of file read, then MiB of anonymous memory, one in each step

WriteTrace = Callable[..., Path]


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `written(**options)`, which writes the trace of these options once in a process."""
    folder = tmp_path_factory.mktemp("written")
    known: dict[tuple[tuple[str, Any], ...], Path] = {}

    def write(**options: Any) -> Path:
        key = tuple(sorted(options.items()))
        if key not in known:
            known[key] = _write(folder / str(len(known)), **options)
        return known[key]

    return write


@pytest.fixture
def write_trace(tmp_path: Path, written: Callable[..., Path]) -> WriteTrace:
    """Return `write_trace(name, **options)`, which makes a trace of the test's own: to copy one takes a
    twentieth of the time."""

    def write(name: str = "trace", **options: Any) -> Path:
        path = shutil.copytree(written(**options), tmp_path / name, copy_function=shutil.copy)
        os.utime(path)  # the copy is new
        return path

    return write


def _write(
    path: Path,
    *,
    comm: str = "python3",
    cgroup: str = "/memcg-tracer-77-page-cache",
    quiet: str = "/quiet",
    container: str | None = None,
    killed: bool = True,
    lost: int = 0,
    ended: bool = True,
    file: str = "/srv/read-me",
    size: int = READ,
    stacks_bytes: int | None = None,
    step_ns: int = STEP_NS,
) -> Path:
    meta = begin(
        command_line=["memcg-tracer", "record", "--", comm],
        cgroup_version=1,
        filters={"cgroups": [cgroup], "stacks_bytes": stacks_bytes},
        probes={"oom": "tp_btf/mark_victim"},
    )
    meta["started"] = "2025-11-24T16:00:00.000000+00:00"
    writer = TraceWriter(path, meta, force=False)
    rows = _experiment(comm, killed, size, step_ns)
    rows["cgroups"] = [
        {"cgroup_id": 7, "path": cgroup, "container": container, "version": 1, "created": START_NS},
        {"cgroup_id": 8, "path": quiet, "version": 1, "created": START_NS},
    ]
    rows["inodes"] = [{"inode_id": 1, "dev": "8:1", "ino": 12, "path": file, "fs_type": "ext4"}]
    if stacks_bytes:
        rows["stacks"] += [{"stack_id": 70_000, "frames": [f"{comm} [work]", "main [work]"]}]
        rows["code_samples"] = [_sampled(step, stacks_bytes) for step in range(READ + GROW)]
    if lost:
        rows["loss"] = [{"time": START_NS, "begin": START_NS, "stream": "pagecache", "lost": lost}]
    for table, listed in rows.items():
        complete = [unset_row(table) | row for row in listed]
        writer.append(table, pa.Table.from_pylist(complete, schema=TABLES[table]))
    writer.flush()
    if ended:
        writer.close("the command ended", ended="2025-11-24T16:00:04.000000+00:00")
    return path


def _sampled(step: int, stacks_bytes: int) -> dict[str, Any]:
    """Return a row of `code_samples`: of cache while the task reads, then of anon while it grows."""
    time = START_NS + STEP_NS * (step + 1)
    known = {"time": time, "cgroup_id": 7, "tgid": 41, "tid": 41, "bytes": stacks_bytes}
    return known | {
        "category": "file" if step < READ else "anon",
        "kernel_stack_id": 3,
        "stack_id": 70_000,
    }


def _experiment(comm: str, killed: bool, size: int, step_ns: int) -> dict[str, list[dict[str, Any]]]:
    """Return table -> rows. The file has `size` MiB; if that is below `READ`, it is read again."""
    charge: list[dict[str, Any]] = []
    pagecache: list[dict[str, Any]] = []
    reclaim: list[dict[str, Any]] = []

    def charged(time: int, category: str, mib: int, usage: int) -> None:
        known = {"time": time, "cgroup_id": 7, "tgid": 41, "category": category, "limit_bytes": LIMIT}
        charge.append(known | {"bytes": mib * MIB, "pages": mib * 256, "usage_bytes": usage})

    def moved(time: int, op: str, cause: str) -> None:
        mib = sum(row["op"] == op for row in pagecache) % size  # the file's next MiB
        known = {"time": time, "cgroup_id": 7, "tgid": 41, "task_cgroup_id": 7, "inode_id": 1}
        pagecache.append(known | {"op": op, "cause": cause, "index": mib * 256, "nr_pages": 256})

    def evict(time: int) -> None:
        known = {
            "time": time,
            "duration_ns": 1_000_000,
            "kind": "memcg",
            "cgroup_id": 7,
            "tgid": 41,
            "pid": 41,
        }
        reclaim.append(known | {"scanned": 300, "reclaimed": 256, "priority": 12, "usage_bytes": LIMIT})
        moved(time, "delete", "reclaim_memcg")
        charged(time, "file", -1, LIMIT - MIB)

    usage = 0
    for step in range(READ + GROW if killed else READ):
        time = START_NS + step_ns * (step + 1)
        if usage == LIMIT:
            evict(time)
        usage = min(usage + MIB, LIMIT)
        if step < READ:
            moved(time, "add", "readahead")
        charged(time, "file" if step < READ else "anon", 1, usage)
    end = START_NS + step_ns * (READ + GROW + 1)
    sizes = (set(MEMORY_STAT_BYTES) & set(CATEGORY.names)) | {"file_dirty", "file_writeback", "unevictable"}
    at_kill = dict.fromkeys((f"{size}_bytes" for size in sizes), 0)
    quiet = {"cgroup_id": 8, "source": "start", "usage_bytes": MIB, "limit_bytes": LIMIT}
    samples = [{"time": START_NS, **quiet}]
    oom = []
    if killed:
        at_kill |= {"anon_bytes": GROW * MIB, "file_bytes": MIB, "usage_bytes": LIMIT, "limit_bytes": LIMIT}
        samples.append({"time": end, "cgroup_id": 7, "source": "oom", "kill_id": 1, **at_kill})
        oom.append(
            {
                **{"time": end, "ktime_ns": 777, "kill_id": 1, "constraint": "memcg"},
                **{"limit_owner_cgroup_id": 7, "usage_bytes": LIMIT, "limit_bytes": LIMIT, "cgroup_id": 7},
                **{"trigger_pid": 41, "trigger_tgid": 41, "trigger_comm": comm, "trigger_cgroup_id": 7},
                **{"gfp": 0xCC0, "kernel_stack_id": 3, "pid": 41, "tgid": 41, "comm": comm},
                **{"anon_rss_bytes": 98 * MIB, "file_rss_bytes": MIB, "shmem_rss_bytes": 0},
            }
        )
    return {
        "charge": charge,
        "pagecache": pagecache,
        "reclaim": reclaim,
        "samples": samples,
        "oom": oom,
        "tasks": [{"tgid": 41, "start_ns": 5, "comm": comm, "cgroup_id": 7, "first_seen": START_NS}],
        "stacks": [{"stack_id": 3, "frames": ["out_of_memory+0x1", "try_charge_memcg+0x2"]}],
    }
