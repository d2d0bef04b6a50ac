"""What a recorder costs apart from any work: its start, its idling, and what it loses under pressure."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
def _idle_cgroups(count: int) -> Iterator[Scope]:
    """Make cgroups without a process: one, or many below one."""
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
        with _idle_cgroups(count) as scope:
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
