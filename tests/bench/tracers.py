"""What traces a work: nothing, `memcg-tracer record`, `perf record`, or programs that do nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from bench import accounting
from bench.accounting import Memory, Runs
from bench.results import Results
from bench.scope import Scope

from tracer.capture.bpf.syscall import RETURN_0, AttachType, ProgramType, attach_program, load_program
from tracer.errors import TracerError
from tracer.kernel.btf import Btf

READY_WITHIN_S: Final = 120.0
_POLL_S: Final = 0.002


@dataclass
class Account:
    """What a tracer used and recorded, complete when its context ends; None where it has no such number.

    `processor_s` is processor time from readiness to the end of the process. `share` is that during the work,
    divided by the time that the work took (`traced_s`). `folios` are recorded page-cache events.
    """

    processor_s: float | None = None
    traced_s: float | None = None
    share: float | None = None
    memory: Memory | None = None
    folios: int | None = None
    lost: int | None = None
    disk_bytes: int | None = None
    programs: Mapping[str, Runs] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracer:
    """A way to trace: `trace(scope, folder)` is a context, in which the work runs.

    `is_ours`: the aims of the project are for this one. `why_not` returns the reason why this machine cannot
    trace so, or None if it can.
    """

    name: str
    trace: Callable[[Scope, Path], AbstractContextManager[Account]]
    is_ours: bool = False
    why_not: Callable[[], str | None] = lambda: None


@contextmanager
def untraced(_scope: Scope, _folder: Path) -> Iterator[Account]:
    yield Account()


UNTRACED: Final = Tracer("untraced", untraced)
AGAIN: Final = Tracer("nothing", untraced)
"""The floor: the work once more without a tracer, at the other end of each round."""


@dataclass(frozen=True)
class Command:
    """A memcg-tracer command to measure: its name in the results, its path, and folders for what it keeps:
    compiled programs (`cache`; None: they are not kept) and Python's bytecode."""

    name: str
    path: Path
    cache: Path | None = None
    bytecode: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment with these folders. Users have bytecode, even where this environment keeps none."""
        inherited = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        kept = {"MEMCG_TRACER_CACHE": self.cache, "PYTHONPYCACHEPREFIX": self.bytecode}
        return inherited | {name: str(folder or "") for name, folder in kept.items()}

    def tracer(self, *options: str) -> Tracer:
        """Return the tracer `record -c CGROUP` with these options."""
        return Tracer(" ".join((self.name, *options)), partial(recording, self, options), is_ours=not options)


@dataclass(frozen=True)
class Session:
    """What each measurement is given: what to measure, how often, on how much work, and where files and
    results go."""

    commands: Sequence[Command]
    rounds: int
    scale: float
    folder: Path
    results: Results


class Recorder:
    """`memcg-tracer record` in the background, its trace in folder/trace. Leaving the context kills it.

    `watch` has the directory of its traces there.
    """

    def __init__(self, command: Command, folder: Path, *options: str, verb: str = "record") -> None:
        self.trace, self._ready = folder / "trace", folder / "ready"
        self._errors = (folder / "errors").open("w+", encoding="utf-8")
        self._ready.unlink(missing_ok=True)
        shutil.rmtree(self.trace, ignore_errors=True)  # another version may not know how to overwrite it
        files = ["--out" if verb == "watch" else "-o", str(self.trace), "--ready-file", str(self._ready)]
        argv = [str(command.path), verb, *files, *options]
        self._verb = verb
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            argv,
            cwd=folder,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self.pid = self._process.pid
        self.memory: Memory | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def wait_until_ready(self) -> float:
        """Wait until all probes are attached, and return the seconds since the start.

        Raises TracerError if the recorder ends before that, or after `READY_WITHIN_S`.
        """
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > self.began + READY_WITHIN_S:
                raise TracerError(f"{self._verb} does not start: {self._last_error()}")
            time.sleep(_POLL_S)
        return time.monotonic() - self.began

    def stop(self) -> float:
        """End the recording, and return the processor time of the recorder and of its children in seconds.

        `memory` is set before, and knows of a peak that comes with the end. Raises TracerError if the
        recorder fails.
        """
        self.memory = accounting.memory(self.pid)
        before_kib = accounting.peak_kib(self.pid)
        self._process.send_signal(signal.SIGINT)
        more_kib = 0
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            more_kib = max(0, accounting.peak_kib(self.pid) - before_kib)
            time.sleep(_POLL_S)
        self.memory = replace(self.memory, peak_kib=self.memory.peak_kib + more_kib)
        _, status, used = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode != 0:
            raise TracerError(
                f"{self._verb} ended with status {self._process.returncode}: {self._last_error()}"
            )
        return used.ru_utime + used.ru_stime

    def _last_error(self) -> str:
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["it printed no error"])[-1]


@contextmanager
def recording(command: Command, options: Sequence[str], scope: Scope, folder: Path) -> Iterator[Account]:
    """Record a scope by a memcg-tracer command."""
    account = Account()
    with Recorder(command, folder, "-c", scope.path, *options) as recorder:
        recorder.wait_until_ready()
        begin, before = time.monotonic(), accounting.processor_s(recorder.pid)
        programs = accounting.program_runs(recorder.pid)
        yield account
        account.traced_s = time.monotonic() - begin
        account.share = (accounting.processor_s(recorder.pid) - before) / account.traced_s
        account.programs = {
            number: Runs(now.name, now.times - was.times, now.total_ns - was.total_ns)
            for number, now in accounting.program_runs(recorder.pid).items()
            for was in (programs.get(number, Runs("", 0, 0)),)
        }
        account.processor_s = recorder.stop() - before
    account.memory = recorder.memory
    account.folios, account.disk_bytes = page_cache_events(recorder.trace)
    account.lost = lost_records(recorder.trace)


def page_cache_events(trace: Path) -> tuple[int, int]:
    """Return the page-cache events in a trace, and the bytes on the disk of their table.

    A row is one folio, or as many as its column `folios` says.
    """
    files = [*trace.glob("pagecache.parquet"), *trace.glob("pagecache/*.parquet")]
    if not files:
        return 0, 0
    table = ds.dataset(files)
    if "folios" in table.schema.names:
        folios = pc.sum(table.to_table(columns=["folios"])["folios"].cast(pa.int64())).as_py() or 0
    else:
        folios = table.count_rows()
    return int(folios), sum(file.stat().st_size for file in files)


def lost_records(trace: Path) -> int:
    """Return the number of lost records of all streams."""
    lost: dict[str, Any] = json.loads((trace / "meta.json").read_text("utf-8"))["lost"] or {}
    return sum(lost.values())


def empty(*tracepoints: str) -> Tracer:
    """Return a floor: at each tracepoint, attached as ours are, a program that returns 0."""
    return Tracer("empty programs", partial(_empty, tracepoints), why_not=partial(_missing, tracepoints))


def _missing(tracepoints: Sequence[str]) -> str | None:
    types = Btf.load()
    missing = [name for name in tracepoints if types.tracepoint(name) is None]
    return f"this kernel has no tracepoint {missing[0]}" if missing else None


@contextmanager
def _empty(tracepoints: Sequence[str], _scope: Scope, _folder: Path) -> Iterator[Account]:
    held: list[int] = []
    kind, attach_type, types = ProgramType.TRACING, AttachType.TRACE_RAW_TP, Btf.load()
    try:
        for tracepoint in tracepoints:
            number = types.tracepoint(tracepoint) or 0
            try:
                held.append(load_program(RETURN_0, kind, "nothing", attach_type=attach_type, target=number))
                held.append(attach_program(held[-1]))
            except OSError as error:
                raise TracerError(f"no empty program at {tracepoint}: {error.strerror}") from error
        yield Account()
    finally:
        for descriptor in held:
            os.close(descriptor)
