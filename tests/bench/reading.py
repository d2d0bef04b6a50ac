"""The cost of reading traces: one with millions of page-cache events at random places, and many kills."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench.results import Figure, in_turn
from bench.tracers import Command, Session
from synthetic.restarts import Restarts

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError

EXAMPLE: Final = Path(__file__).parents[2] / "traces" / "page-cache"
EVENTS: Final = 10_000_000
ROUNDS: Final = 3
GROUP_ROWS: Final = 1 << 18
CACHED_PAGES: Final = 25_600
FILE_PAGES: Final = 1 << 20
VERBS: Final = {"timeline": 2.0, "explain": 1.5, "evictions": 3.0}
"""Verb -> the aim for its time in seconds, for `EVENTS`."""
MEMORY_MIB: Final = 600
FORMATS: Final = {"perfetto": 10.0, "chrome": None, "csv": None, "parquet": None, "openmetrics": None}
"""Format of `export` -> the aim for its time in seconds, for `EVENTS`; None: there is no aim."""

FEW: Final = 50
MANY: Final = 500
IN_LOOP: Final = 2000
LOG_MB: Final = 30
_KILLED: Final = "Memory cgroup out of memory: Killed process"
_SIZES: Final = (
    "total-vm:90000kB, anon-rss:40000kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:200kB oom_score_adj:0"
)
SHAPES: Final[dict[str, tuple[Callable[[int], Restarts], Callable[[AnalysedTrace], Any]]]] = {
    "kill, all for one limit": (Restarts, AnalysedTrace.explain),
    "kill, each for the limit of another cgroup": (
        lambda count: Restarts(count, count),
        AnalysedTrace.explain,
    ),
    "cgroup that lived": (lambda count: Restarts(count, count, None), AnalysedTrace.held_cgroups),
}
"""The repeated thing -> (maker of a trace with a number of them, the analysis that is timed)."""


def random_events(folder: Path, events: int) -> Path:
    """Make a trace like the shipped example, but with `events` page-cache events at random places of a file.

    The rows have the columns of the example, which every version reads. A page is read, and the oldest
    cached page is evicted for it. All pages are read in random order, and then again: most adds are refaults.
    """
    shutil.copytree(EXAMPLE, folder)
    recorded = pq.read_table(folder / "pagecache.parquet")
    schema, chance = recorded.schema, np.random.default_rng(7)
    adds = (events + CACHED_PAGES) // 2
    turns = -(-adds // FILE_PAGES)
    added = np.concatenate([chance.permutation(FILE_PAGES) for _ in range(turns)])[:adds]
    is_add = np.ones(events, bool)
    is_add[CACHED_PAGES + 1 :: 2] = False
    index = np.empty(events, np.int64)
    index[is_add] = added[: is_add.sum()]
    index[~is_add] = added[: (~is_add).sum()]
    times = recorded["time"].cast(pa.int64()).to_numpy()
    like = recorded.slice(0, 1).to_pylist()[0]
    columns = {
        "time": np.linspace(times.min(), times.max(), events).astype(np.int64),
        "index": index,
        "nr_pages": np.ones(events, np.int64),
        "op": pa.DictionaryArray.from_arrays(pa.array(is_add, pa.int8()).cast(pa.int32()), ["delete", "add"]),
        "cause": pa.DictionaryArray.from_arrays(
            pa.array(is_add, pa.int8()).cast(pa.int32()), ["reclaim_memcg", "read"]
        ),
    }
    arrays = [
        pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(like[field.name], field.type), events)
        for field in schema
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    pq.write_table(table, folder / "pagecache.parquet", row_group_size=GROUP_ROWS, compression="zstd")
    return folder


def verbs(session: Session) -> None:
    """Measure verbs on a trace of ten million random events: wall time, processor time and peak memory."""
    events = EVENTS if session.scale == 1 else EVENTS // 10
    trace = session.folder / "random"
    _make_in_a_child(trace, events)
    took: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for command in session.commands:
        for verb in VERBS:
            _read(command, verb, str(EXAMPLE))  # writes bytecode
    for number in range(min(session.rounds, ROUNDS)):
        for verb in VERBS:
            for command in in_turn(session.commands, number):
                took.setdefault((verb, command.name), []).append(_read(command, verb, str(trace)))
    shutil.rmtree(trace)
    for (verb, name), runs in took.items():
        title, (seconds, processor, mib) = (
            f"{verb}, {events // 1_000_000} M random events",
            map(list, zip(*runs, strict=True)),
        )
        is_full = events == EVENTS
        session.results.figures += [
            Figure("reading", title, name, "s", seconds, VERBS[verb] if is_full else None),
            Figure("reading", f"{title}, CPU", name, "s", processor),
            Figure("reading", f"{title}, memory", name, "MiB", mib, MEMORY_MIB if is_full else None),
        ]


def exports(session: Session) -> None:
    """Measure `export` of ten million random events in each format that needs no stacks."""
    events = EVENTS if session.scale == 1 else EVENTS // 10
    trace, out = session.folder / "random", session.folder / "exported"
    _make_in_a_child(trace, events)
    for command in session.commands:
        for name, aim_s in FORMATS.items():
            _read(command, "export", str(EXAMPLE), "--to", name, "-o", str(out))  # writes bytecode
            _remove(out)
            seconds, processor, mib = _read(command, "export", str(trace), "--to", name, "-o", str(out))
            title = f"export --to {name}, {events // 1_000_000} M random events"
            session.results.figures += [
                Figure("export", title, command.name, "s", [seconds], aim_s if events == EVENTS else None),
                Figure("export", f"{title}, CPU", command.name, "s", [processor]),
                Figure("export", f"{title}, memory", command.name, "MiB", [mib]),
                Figure("export", f"{title}, size", command.name, "MiB", [_size_mib(out)]),
            ]
            _remove(out)
    shutil.rmtree(trace)


def _size_mib(path: Path) -> float:
    files = [path] if path.is_file() else [*path.iterdir()]
    return sum(file.stat().st_size for file in files) / (1 << 20)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_in_a_child(trace: Path, events: int) -> None:
    """Make the trace in a process of its own. The peak memory of a program includes that of the process that
    started it (setmax_mm_hiwater_rss in exec_mmap, fs/exec.c), and this one must stay small.
    """
    _in_a_child(random_events, trace, events)


def _in_a_child(make: Callable[..., object], *arguments: object) -> None:
    maker = get_context("spawn").Process(target=make, args=arguments)
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        raise TracerError(f"the trace could not be made: status {maker.exitcode}")


def _read(command: Command, verb: str, *arguments: str) -> tuple[float, float, float]:
    """Run a verb; return its seconds, its processor seconds, and its peak memory in MiB."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [str(command.path), verb, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=command.environment,
    )
    assert process.stderr is not None
    errors = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - begin
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise TracerError(f"{verb} ended with status {process.returncode}: {(errors or ['no error'])[-1]}")
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def kills(session: Session) -> None:
    """Measure what `explain` takes for a kill and for a surviving cgroup, with few and with many of them.

    It is the processor time of this checkout's analysis, without that of reading the tables. Then the whole
    commands are measured: a list and the newest kill of many, and a large kernel log.
    """
    for what, (restarts, look) in SHAPES.items():
        for count in (FEW, MANY):
            trace = restarts(count).write(session.folder / f"{what} {count}")
            title = f"explain, a {what}, with {count}"
            figure = Figure("kills", title, "this checkout", "ms", [_each_ms(trace, look)])
            session.results.figures.append(figure)
            shutil.rmtree(trace)


def many_kills(session: Session) -> None:
    """Measure whole commands on a trace of many kills for one limit, and on a large kernel log."""
    trace, log = session.folder / "many kills", session.folder / "many kills.log"
    for make in (_make_many_kills, _make_log):
        _in_a_child(make, trace if make is _make_many_kills else log)
    for command in session.commands:
        _read(command, "explain", str(EXAMPLE), "--list")  # writes bytecode
        for title, arguments in (
            (f"explain --list, {IN_LOOP} kills", (str(trace), "--list")),
            (f"explain --last, {IN_LOOP} kills", (str(trace), "--last")),
            (f"explain --kmsg, {LOG_MB} MB", ("--kmsg", str(log))),
        ):
            _, processor, mib = _read(command, "explain", *arguments)
            session.results.figures += [
                Figure("kills", f"{title}, CPU", command.name, "s", [processor]),
                Figure("kills", f"{title}, memory", command.name, "MiB", [mib]),
            ]
    shutil.rmtree(trace)
    log.unlink()


def _make_many_kills(folder: Path) -> None:
    Restarts(IN_LOOP, charges=24, folios=16).write(folder)


def _make_log(path: Path) -> None:
    """Write the report of the recorded example again and again, two kills without a report after each."""
    rows = pq.read_table(EXAMPLE / "kernel_log.parquet", columns=["text"]).column("text").to_pylist()
    path_in_it = "\n".join(rows).rpartition("oom_memcg=")[2].partition(",")[0]
    size, kill = 0, 0
    with path.open("w", encoding="utf-8") as log:
        while size < LOG_MB * 1_000_000:
            kill += 3
            alone = [f"{_KILLED} {20_000 + kill + more} (worker) {_SIZES}" for more in (1, 2)]
            report = [row.replace(path_in_it, f"/pods/{kill}") for row in rows]
            text = "".join(f"[{kill:6}.{at:06}] {line}\n" for at, line in enumerate([*report, *alone]))
            size += log.write(text)


def _each_ms(path: Path, look: Callable[[AnalysedTrace], Any]) -> float:
    trace = AnalysedTrace(path)
    for table in ("charge", "pagecache", "reclaim", "samples", "waits", "refaulted"):
        getattr(trace, table)
    begin = time.process_time()
    found = look(trace)
    return (time.process_time() - begin) * 1e3 / len(found)
