"""`perf record` of the two page-cache tracepoints, as a tracer to compare with."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import accounting
from bench.scope import Scope
from bench.tracers import Account, Tracer

from tracer.errors import TracerError

EVENTS: Final = ("filemap:mm_filemap_add_to_page_cache", "filemap:mm_filemap_delete_from_page_cache")
TRACEFS: Final = Path("/sys/kernel/tracing")
WITHIN_S: Final = 60.0


def why_not() -> str | None:
    """Return the reason why perf cannot be used for the comparison, or None if it can."""
    if shutil.which("perf") is None:
        return "perf is not installed"
    missing = [event for event in EVENTS if not (TRACEFS / "events" / event.replace(":", "/")).is_dir()]
    return f"{TRACEFS} does not show {missing[0]}: mount -t tracefs tracefs {TRACEFS}" if missing else None


@contextmanager
def tracefs() -> Iterator[None]:
    """Mount tracefs until the context ends, if it is not mounted: perf reads tracepoints from it."""
    if (TRACEFS / "events").is_dir():
        yield
        return
    mount = subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=False, capture_output=True)
    try:
        yield
    finally:
        if mount.returncode == 0:
            subprocess.run(["umount", TRACEFS], check=True)


@contextmanager
def _by_perf(scope: Scope, folder: Path) -> Iterator[Account]:
    """Trace the tasks of a scope on all CPUs: perf selects by the task, it does not know a page's owner.

    Without a hierarchy for perf, it traces all tasks.
    """
    data, account = folder / "perf.data", Account()
    events = [word for event in EVENTS for word in ("-e", event)]
    select_tasks = ["-G", ",".join([scope.perf_name] * len(EVENTS))] if scope.perf else []
    (command, ordered), (answered, answer) = os.pipe(), os.pipe()
    control = ["--delay", "-1", "--control", f"fd:{command},{answer}"]
    process = subprocess.Popen(
        ["perf", "record", "-a", *events, *select_tasks, "-o", str(data), *control],
        pass_fds=(command, answer),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        os.close(answer)  # so that a read of `answered` returns if perf ends
        os.write(ordered, b"enable\n")
        if not select.select([answered], [], [], WITHIN_S)[0] or not os.read(answered, 16).startswith(b"ack"):
            process.kill()
            errors = process.communicate()[1].strip().splitlines()
            raise TracerError(f"perf does not trace: {errors[-1] if errors else 'it printed no error'}")
        before = accounting.processor_s(process.pid)
        yield account
        process.send_signal(signal.SIGINT)
        _, _, used = os.wait4(process.pid, 0)
        account.processor_s = used.ru_utime + used.ru_stime - before
        account.folios, account.lost = counts(data)
        account.disk_bytes = data.stat().st_size
    finally:
        process.kill()
        process.communicate()
        for descriptor in (command, ordered, answered):
            os.close(descriptor)
        data.unlink(missing_ok=True)


def counts(data: Path) -> tuple[int, int | None]:
    """Return (samples of both tracepoints, lost samples); the latter is None if perf has no count of them.

    The kernel counts lost samples since 119a784c8127 ("perf/core: Add a new read format to get a number of
    lost samples"), v6.0.
    """
    argv = ["perf", "report", "--stats", "-i", str(data)]
    report = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=WITHIN_S).stdout
    total, *events = re.split(r"^(?=filemap:)", report, flags=re.MULTILINE)
    samples, lost = (
        sum(int(number) for event in events for number in re.findall(rf" {kind} events: +(\d+)", event))
        for kind in ("SAMPLE", "LOST_SAMPLES")
    )
    return samples, None if " LOST events:" in total and not lost else lost


PERF: Final = Tracer("perf record", _by_perf, why_not=why_not)
