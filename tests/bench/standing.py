"""What recorders cost apart from any work: start, idling and losses under pressure; `watch` and `top`."""

from __future__ import annotations

import multiprocessing
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import accounting
from bench.results import Figure, in_turn
from bench.scope import Scope, scopes
from bench.tracers import Command, Recorder, Session
from bench.works import MEMORY, base_s

from tracer.errors import TracerError

MANY: Final = 1000
SETTLE_S: Final = 2.0
IDLE_S: Final = 10.0
TIMES: Final = 20
PAGES: Final = 200_000
QUIET_S: Final = 30.0
BUSY_S: Final = 60.0
CONTAINERS: Final = 100
LOAD: Final = 10
LIMIT_BYTES: Final = 60 << 20
SHOWN: Final = 200
SHOWN_S: Final = 30.0
SIZE: Final = (50, 160)
PAGES_A_SECOND: Final = 8
READY: Final = b"all probes are attached"
WITHIN_S: Final = 30.0

ALLOCATE: Final = "held = []\nwhile True: held.append(bytearray(1 << 20))"


def start(session: Session) -> None:
    """Measure the time from the command to readiness, with programs that were kept and without."""
    kinds = {"kept programs": 0.4, "programs not kept": 1.2}
    took: dict[tuple[str, str], list[float]] = {}
    used: dict[tuple[str, str], list[float]] = {}
    with scopes("start") as scope:
        for command in session.commands:
            with Recorder(command, session.folder, "-c", scope.path) as recorder:
                recorder.wait_until_ready()  # its programs are kept now
        for number in range(session.rounds):
            for command in in_turn(session.commands, number):
                for kind in in_turn(list(kinds), number):
                    started = command if kind == "kept programs" else replace(command, cache=None)
                    with Recorder(started, session.folder, "-c", scope.path) as recorder:
                        took.setdefault((kind, command.name), []).append(recorder.wait_until_ready())
                        spent = accounting.processor_s(recorder.pid)
                        used.setdefault((kind, command.name), []).append(spent)
    for (kind, name), seconds in took.items():
        session.results.figures.append(
            Figure("start", f"command to ready, {kind}", name, "s", seconds, kinds[kind])
        )
        title = f"CPU of a start, {kind}"
        session.results.figures.append(Figure("start", title, name, "s", used[kind, name]))


@contextmanager
def idle_cgroups(count: int) -> Iterator[Scope]:
    """Make cgroups without a process: one, or many below one. They are removed at the end."""
    with scopes("idle") as scope:
        for number in range(count if count > 1 else 0):
            (scope.memory / f"idle-{number}").mkdir()
        yield scope  # the cgroup is removed with those below it


def idle(session: Session) -> None:
    """Measure the processor time and memory of a recorder while nothing happens in what it traces."""
    for count, at_most in ((1, 0.5), (MANY, 2.0)):
        title = "one idle cgroup" if count == 1 else f"{count:,} idle cgroups"
        shares: dict[str, list[float]] = {}
        memory: dict[str, list[float]] = {}
        failed: set[str] = set()
        with idle_cgroups(count) as scope:
            for number in range(min(session.rounds, 3)):
                for command in in_turn(session.commands, number):
                    if command.name in failed:
                        continue
                    try:
                        share, mib = _idle_share(command, session.folder, scope, IDLE_S * session.scale)
                    except TracerError as error:
                        failed.add(command.name)
                        session.results.left_out.append(f"{title}, {command.name}: {error}")
                        continue
                    shares.setdefault(command.name, []).append(share)
                    memory.setdefault(command.name, []).append(mib)
        for name, values in shares.items():
            aims = (
                ("CPU", "% of a core", values, at_most),
                (MEMORY, "MiB", memory[name], 110),
            )
            session.results.figures += [
                Figure("idle", f"{what}, {title}", name, unit, found, aim) for what, unit, found, aim in aims
            ]


def _idle_share(command: Command, folder: Path, scope: Scope, seconds: float) -> tuple[float, float]:
    """Return (percent of a core, MiB) of a recorder that has nothing to do, after it has settled."""
    with Recorder(command, folder, "-c", scope.path) as recorder:
        recorder.wait_until_ready()
        time.sleep(SETTLE_S)
        begin, before = time.monotonic(), accounting.processor_s(recorder.pid)
        time.sleep(seconds)
        used = accounting.processor_s(recorder.pid) - before
        share = 100 * used / (time.monotonic() - begin)
        recorder.stop()
    assert recorder.memory is not None
    return share, recorder.memory.total_mib


def lost(session: Session) -> None:
    """Count what is lost when a file of 200,000 pages is written in pages and removed, twenty times."""
    times, file = max(2, round(TIMES * session.scale)), session.folder / "written"
    once = f"dd if=/dev/zero of={file} bs=4096 count={PAGES} status=none; rm {file}"
    work = f"for i in $(seq {times}); do {once}; done"
    title = f"dd of {PAGES // 1000}k pages and rm, × {times}"
    for command in session.commands:
        tracer = command.tracer()
        with scopes("lost") as scope, tracer.trace(scope, session.folder) as account:
            scope.run(["sh", "-c", work], cpu=None)
        assert account.folios and account.processor_s and account.traced_s
        used_s = account.processor_s - base_s(tracer, account.traced_s, session.folder, times=1)
        session.results.figures += [
            Figure("lost", f"lost, {title}", command.name, "records", [account.lost or 0], 0),
            Figure("lost", f"recorded, {title}", command.name, "folios", [account.folios]),
            Figure(
                "lost",
                f"CPU for a million, {title}",
                command.name,
                "s",
                [1e6 * used_s / account.folios],
                0.05,
            ),
        ]


def example(session: Session) -> None:
    """Measure the time until `explain` of the shipped example prints its first line."""
    trace = Path(__file__).parents[2] / "traces" / "page-cache"
    took: dict[str, list[float]] = {command.name: [] for command in session.commands}
    for number in range(-1, session.rounds):
        for command in in_turn(session.commands, number):
            begin = time.monotonic()
            argv = [str(command.path), "explain", str(trace)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, env=command.environment) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                if number >= 0:  # not the first, which writes bytecode
                    took[command.name].append(time.monotonic() - begin)
                process.stdout.read()
            if not line or process.returncode != 0:
                raise TracerError(f"explain of the example ended with status {process.returncode}")
    session.results.figures += [
        Figure("example", "explain of the example, 1st line", name, "s", values, 0.5)
        for name, values in took.items()
    ]


def watch(session: Session) -> None:
    """Measure `watch` without a filter: all cgroups of the machine are watched."""
    shares: dict[tuple[str, str], list[float]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    kills: dict[str, list[float]] = {}
    for number in range(min(session.rounds, 3)):
        for command in in_turn(session.commands, number):
            for title, count in (("idle host", 1), (f"{MANY:,} idle cgroups", MANY)):
                with idle_cgroups(count):
                    share, mib = _quiet(command, session.folder, QUIET_S * session.scale)
                shares.setdefault((title, command.name), []).append(share)
                memory.setdefault((title, command.name), []).append(mib)
            title = f"{CONTAINERS} cgroups at work"
            share, mib = _busy(command, session.folder, BUSY_S * session.scale)
            shares.setdefault((title, command.name), []).append(share)
            memory.setdefault((title, command.name), []).append(mib)
            kills.setdefault(command.name, []).append(_kill_to_trace_s(command, session.folder))
    aims = {"idle host": 0.3, f"{MANY:,} idle cgroups": 1.0}
    figures = session.results.figures
    for (title, name), values in shares.items():
        figures.append(Figure("watch", f"CPU, {title}", name, "% of a core", values, aims.get(title)))
    for (title, name), values in memory.items():
        figures.append(Figure("watch", f"resident, {title}", name, "MiB", values, 100))
    for name, values in kills.items():
        figures.append(Figure("watch", f"kill to trace, load of {LOAD}", name, "s", values, 2))


def _quiet(command: Command, folder: Path, seconds: float) -> tuple[float, float]:
    """Return (percent of a core, MiB) while nothing is done."""
    with Recorder(command, folder, verb="watch") as recorder:
        recorder.wait_until_ready()
        time.sleep(SETTLE_S)
        found = _share(recorder.pid, seconds)
        recorder.stop()
    return found


def _busy(command: Command, folder: Path, seconds: float) -> tuple[float, float]:
    """Return (percent of a core, MiB) with a process at work in each of many cgroups."""
    with Recorder(command, folder, verb="watch") as recorder, idle_cgroups(CONTAINERS) as scope:
        recorder.wait_until_ready()
        works = [
            multiprocessing.Process(target=_work_in, args=(place, seconds + SETTLE_S, folder / place.name))
            for place in sorted(scope.memory.glob("idle-*"))
        ]
        for work in works:
            work.start()
        time.sleep(SETTLE_S)
        found = _share(recorder.pid, seconds)
        for work in works:
            work.join()
        recorder.stop()
    return found


def _work_in(cgroup: Path, seconds: float, file: Path) -> None:
    """Allocate, write and read a MiB five times a second, in a cgroup."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        held = bytearray(1 << 20)
        file.write_bytes(held)
        file.read_bytes()
        time.sleep(0.2)
    file.unlink()


def _share(pid: int, seconds: float) -> tuple[float, float]:
    """Return (percent of a core, resident MiB) of a process and its children over the next seconds."""
    begin, before = time.monotonic(), accounting.processor_s(pid)
    time.sleep(seconds)
    used = accounting.processor_s(pid) - before
    resident_pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    share = 100 * used / (time.monotonic() - begin)
    return share, resident_pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


def _kill_to_trace_s(command: Command, folder: Path) -> float:
    """Return the time from the end of a killed process until its trace has its name, on a busy machine."""
    with Recorder(command, folder, verb="watch") as recorder:
        recorder.wait_until_ready()
        with _load(), scopes("kill", LIMIT_BYTES) as scope:
            scope.start([sys.executable, "-c", ALLOCATE], cpu=None).wait()
            begin = time.monotonic()
            while not any(recorder.trace.glob("2*-kill-*")):
                if time.monotonic() - begin > WITHIN_S:
                    raise TracerError(f"a kill left no trace within {WITHIN_S:.0f} s")
                time.sleep(0.01)
            took = time.monotonic() - begin
        recorder.stop()
    return took


@contextmanager
def _load() -> Iterator[None]:
    """Keep all CPUs busy with more processes than there are CPUs."""
    busy = [multiprocessing.Process(target=_spin) for _ in range(LOAD)]
    for one in busy:
        one.start()
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.join()


def _spin() -> None:
    while True:
        pass


def top(session: Session) -> None:
    """Measure `top` with 200 cgroups, in each of which a process writes and maps a few pages each second."""
    shares: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for number in range(min(session.rounds, 3)):
        for command in in_turn(session.commands, number):
            found, mib = _shown(command, session.folder, SHOWN_S * session.scale)
            shares.setdefault(command.name, []).append(found)
            memory.setdefault(command.name, []).append(mib)
    title = f"{SHOWN} cgroups at work"
    for name, values in shares.items():
        session.results.figures += [
            Figure("top", f"CPU of top, {title}", name, "% of a core", values, 2),
            Figure("top", f"resident, top, {title}", name, "MiB", memory[name], 120),
        ]


def _shown(command: Command, folder: Path, seconds: float) -> tuple[float, float]:
    """Return (percent of a core, MiB) of a `top` that shows cgroups at work."""
    with (
        idle_cgroups(SHOWN) as scope,
        _at_light_work(scope, folder),
        _on_terminal(command, scope, folder) as pid,
    ):
        time.sleep(SETTLE_S)
        return _share(pid, seconds)


@contextmanager
def _at_light_work(scope: Scope, folder: Path) -> Iterator[None]:
    works = [
        multiprocessing.Process(target=_work_lightly, args=(place, folder / place.name, number / SHOWN))
        for number, place in enumerate(sorted(scope.memory.glob("idle-*")))
    ]
    for work in works:
        work.start()
    try:
        yield
    finally:
        for work in works:
            work.kill()
        for work in works:
            work.join()


def _work_lightly(cgroup: Path, file: Path, wait_s: float) -> None:
    """Write a page, and touch new ones, once a second, in a cgroup."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    time.sleep(wait_s)
    written = 0
    with file.open("wb", buffering=0) as out:
        while True:
            held = bytearray(PAGES_A_SECOND << 12)
            out.write(held[: 1 << 12])
            written = (written + 1) % 64
            if not written:
                out.truncate(0)
                out.seek(0)
            time.sleep(1)


@contextmanager
def _on_terminal(command: Command, scope: Scope, folder: Path) -> Iterator[int]:
    """Run `top` on a terminal of its own, which takes all that it sends; yield its process id once its probes
    are attached."""
    terminal, slave = pty.openpty()
    termios.tcsetwinsize(slave, SIZE)
    is_ready = threading.Event()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [str(command.path), "top", "-c", scope.path],
            cwd=folder,
            env=command.environment | {"TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=errors,
            start_new_session=True,
        )
        os.close(slave)
        reader = threading.Thread(target=_take, args=(terminal, is_ready))
        reader.start()
        try:
            if not is_ready.wait(WITHIN_S):
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip().splitlines() or [
                    "it printed no error"
                ]
                raise TracerError(f"top does not start: {said[-1]}")
            yield process.pid
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(WITHIN_S)
        finally:
            process.kill()
            process.wait()
            reader.join()
            os.close(terminal)


def _take(terminal: int, is_ready: threading.Event) -> None:
    """Read what a terminal is sent until nobody has it open."""
    read = b""
    with suppress(OSError):
        while select.select([terminal], [], [])[0] and (more := os.read(terminal, 1 << 16)):
            read = (read + more)[-(1 << 17) :]
            if READY in read:
                is_ready.set()
