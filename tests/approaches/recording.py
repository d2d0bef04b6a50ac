"""Records planned approaches on this machine, as root: what `watch --on soon` would decide from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from approaches.plans import Plan
from support.recorder import Recorder

from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.trace.read.reader import Trace

COLUMNS: Final = (
    *("usage_bytes", "limit_bytes", "effective_limit_bytes", "protected_bytes", "soft_limit_bytes"),
    *("swap_room_bytes", "file_bytes", "shmem_bytes", "unevictable_bytes", "inactive_file_bytes"),
    *("active_file_bytes", "inactive_anon_bytes", "active_anon_bytes", "slab_reclaimable_bytes"),
    "oom_kill_events",
)
"""The columns of `samples` that the rule reads, beside `time`, `cgroup_id` and `source`."""

_WORKLOAD: Final = Path(__file__).parents[1] / "workloads" / "approaching.py"
_LONGEST_S: Final = 150.0
_SPINNERS: Final = 4
_OF_A_RECORDER: Final = 16
"""Approaches that one recorder records."""

_MIB: Final = 1 << 20


def record(plans: Sequence[Plan], out: Path, at_once: int) -> None:
    """Carry out plans, `at_once` at a time, and write their samples to a Parquet file.

    Raises ValueError if the samples of one do not have as many kills as the kernel counted.
    """
    parts: list[pa.Table] = []
    for is_loaded in (False, True):
        chosen = [plan for plan in plans if plan.is_loaded is is_loaded]
        for begin in range(0, len(chosen), _OF_A_RECORDER):
            with _spinners(_SPINNERS * is_loaded):
                parts += _recorded(chosen[begin : begin + _OF_A_RECORDER], at_once)
    write_table(pa.concat_tables(parts).unify_dictionaries(), out)


def _recorded(plans: Sequence[Plan], at_once: int) -> list[pa.Table]:
    """Return the samples of plans. If the recorder fails, its output is shown, and all is done again."""
    hierarchy = memory_hierarchy()
    options = ("-c", "/memcg-tracer-*-approach-*", "--ready-file", "ready")
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-approaches-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        with Recorder(folder, *options, launch=("-m", "tracer", "--debug")) as recorder:
            recorder.wait_until_ready()
            with ThreadPoolExecutor(at_once) as workers:
                found = list(workers.map(lambda plan: _carry_out(plan, folder, hierarchy), plans))
            if recorder.process.poll() is None:
                samples = Trace(recorder.stop()).table("samples")
                names = (plan.name for plan in plans)
                return [_series(samples, *one) for one in zip(names, found, strict=True)]
            print(recorder.end().stderr, file=sys.stderr, flush=True)
    return _recorded(plans, at_once)


@contextmanager
def _spinners(number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            spinner = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(spinner.kill)
        yield


def _carry_out(plan: Plan, folder: Path, hierarchy: Hierarchy) -> tuple[int, int]:
    """Return the id of the cgroup in which a plan was carried out, and the kernel's count of its kills."""
    work = folder / plan.name
    work.mkdir()
    with ExitStack() as stack:
        name = f"approach-{plan.name}"
        memcg = stack.enter_context(ephemeral_cgroup(name, plan.limit_mib * _MIB, hierarchy=hierarchy))
        entered = [memcg / "cgroup.procs"]
        if plan.is_slowed and hierarchy.version == 2:
            (memcg / "memory.high").write_text(str(int(0.8 * plan.limit_mib * _MIB)), encoding="ascii")
        elif plan.is_slowed:
            entered.append(stack.enter_context(_tenth_of_a_cpu(memcg.name)) / "cgroup.procs")
        enter = "".join(f'echo 0 > "{file}" && ' for file in entered)
        arguments = [sys.executable, "-I", str(_WORKLOAD), str(work), str(plan.seed), json.dumps(plan.steps)]
        process = stack.enter_context(subprocess.Popen(["sh", "-c", enter + 'exec "$0" "$@"', *arguments]))
        stack.callback(process.kill)
        try:
            process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            print(f"{plan.name}: ended after {_LONGEST_S:.0f} s", file=sys.stderr)
        return cgroup_id(memcg), _kills(memcg, hierarchy.version)


@contextmanager
def _tenth_of_a_cpu(name: str) -> Iterator[Path]:
    """Make a cgroup of the CPU controller of v1 with a tenth of a CPU."""
    directory = Path("/sys/fs/cgroup/cpu") / name
    directory.mkdir()
    try:
        (directory / "cpu.cfs_quota_us").write_text("10000", encoding="ascii")
        yield directory
    finally:
        directory.rmdir()


def _kills(memcg: Path, version: int) -> int:
    file = memcg / ("memory.oom_control" if version == 1 else "memory.events")
    counts = dict(line.split() for line in file.read_text("ascii").splitlines())
    return int(counts["oom_kill"])


def _series(samples: pa.Table, name: str, found: tuple[int, int]) -> pa.Table:
    """Return the samples of an approach, whose cgroup had this id and this number of kills."""
    number, kills = found
    of = samples.filter(pc.equal(samples["cgroup_id"], number)).sort_by("time")
    recorded = pc.sum(pc.equal(of["source"], "oom")).as_py() or 0
    print(f"{name}: {len(of)} samples, {recorded} kills", file=sys.stderr, flush=True)
    if recorded != kills:
        raise ValueError(f"{name}: {recorded} kills were recorded, the kernel counts {kills}")
    times = np.asarray(of["time"].cast(pa.int64()))
    columns = {
        "approach": pa.array([name] * len(of)).dictionary_encode(),
        "time_us": pa.array((times - times[0]) // 1000),
        "is_kill": pc.equal(of["source"], "oom"),
    }
    return pa.table(columns | {column: of[column] for column in COLUMNS})


def write_table(table: pa.Table, out: Path) -> None:
    """Write the samples of approaches, as small as Parquet can."""
    encoded = dict.fromkeys(("time_us", *COLUMNS), "DELTA_BINARY_PACKED")
    pq.write_table(
        table,
        out,
        compression="zstd",
        compression_level=19,
        use_dictionary=["approach"],
        column_encoding=encoded,
        write_statistics=False,
    )
