"""`perf record` of the two page-cache tracepoints, as a tracer to compare with."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.tracers import Seconds, Traced, Tracer

from tracer.errors import TracerError

EVENTS: Final = ("filemap:mm_filemap_add_to_page_cache", "filemap:mm_filemap_delete_from_page_cache")
TRACEFS: Final = Path("/sys/kernel/tracing")
WITHIN_S: Final = 60.0


def why_not() -> str | None:
    """Why perf cannot be compared with here; None: it can be."""
    if shutil.which("perf") is None:
        return "perf is not installed"
    missing = [event for event in EVENTS if not (TRACEFS / "events" / event.replace(":", "/")).is_dir()]
    return f"{TRACEFS} does not show {missing[0]}: mount -t tracefs tracefs {TRACEFS}" if missing else None


@contextmanager
def tracefs() -> Iterator[None]:
    """Where perf reads what a tracepoint is: mounted for as long as it is needed, if it can be."""
    if (TRACEFS / "events").is_dir():
        yield
        return
    mount = subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=False, capture_output=True)
    try:
        yield
    finally:
        if mount.returncode == 0:
            subprocess.run(["umount", TRACEFS], check=True)


def by_perf(_cgroup: Path, folder: Path, work: Callable[[], Seconds]) -> Traced:
    """The whole machine, as perf is used for this: it cannot select by the owner of a page."""
    data = folder / "perf.data"
    events = [word for event in EVENTS for word in ("-e", event)]
    (command, ordered), (answered, answer) = os.pipe(), os.pipe()
    control = f"fd:{command},{answer}"
    argv = ["perf", "record", "-a", *events, "-o", str(data), "--delay", "-1", "--control", control]
    process = subprocess.Popen(
        argv, pass_fds=(command, answer), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        os.close(answer)  # so that its end is seen, should perf end
        os.write(ordered, b"enable\n")
        if not select.select([answered], [], [], WITHIN_S)[0] or not os.read(answered, 16).startswith(b"ack"):
            process.kill()
            said = process.communicate()[1].strip().splitlines()
            raise TracerError(f"perf does not trace: {said[-1] if said else 'it said nothing'}")
        seconds = work()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WITHIN_S)
        samples, lost = counts(data)
        return Traced(seconds, samples, lost, data.stat().st_size)
    finally:
        process.kill()
        process.communicate()
        for descriptor in (command, ordered, answered):
            os.close(descriptor)
        data.unlink(missing_ok=True)


def counts(data: Path) -> tuple[int, int | None]:
    """Samples of both tracepoints, and how many were lost; None where perf knows only that some were.

    The kernel counts them since "perf/core: Add a new read format to get a number of lost samples" (6.0).
    """
    argv = ["perf", "report", "--stats", "-i", str(data)]
    report = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=WITHIN_S).stdout
    total, *events = re.split(r"^(?=filemap:)", report, flags=re.MULTILINE)
    samples, lost = (
        sum(int(number) for event in events for number in re.findall(rf" {kind} events: +(\d+)", event))
        for kind in ("SAMPLE", "LOST_SAMPLES")
    )
    return samples, None if " LOST events:" in total and not lost else lost


PERF: Final = Tracer("perf record -a", by_perf)
