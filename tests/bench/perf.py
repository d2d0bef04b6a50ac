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


def by_perf(_cgroup: Path, folder: Path, work: Callable[[], Seconds]) -> Traced:
    """Trace the work by perf. It records the whole machine, because it cannot select by a page's owner."""
    data = folder / "perf.data"
    events = [word for event in EVENTS for word in ("-e", event)]
    (command, ordered), (answered, answer) = os.pipe(), os.pipe()
    control = f"fd:{command},{answer}"
    argv = ["perf", "record", "-a", *events, "-o", str(data), "--delay", "-1", "--control", control]
    process = subprocess.Popen(
        argv, pass_fds=(command, answer), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        os.close(answer)  # so that a read of `answered` returns if perf ends
        os.write(ordered, b"enable\n")
        if not select.select([answered], [], [], WITHIN_S)[0] or not os.read(answered, 16).startswith(b"ack"):
            process.kill()
            errors = process.communicate()[1].strip().splitlines()
            raise TracerError(f"perf does not trace: {errors[-1] if errors else 'it printed no error'}")
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


PERF: Final = Tracer("perf record -a", by_perf)
