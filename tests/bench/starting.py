"""What it takes until a recorder is ready: its programs compiled, or taken from the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.recorder import Recorder

ROUNDS: Final = 7


def start(folder: Path, cache: str) -> tuple[float, float]:
    """Seconds from the command to the moment when all is attached, and the recorder's peak memory in MiB."""
    (folder / "ready").unlink(missing_ok=True)
    env = os.environ | {"MEMCG_TRACER_CACHE": cache}
    begin = time.monotonic()
    with Recorder(folder, "-f", "--ready-file", "ready", env=env) as recorder:
        recorder.wait_until_ready()
        took_s = time.monotonic() - begin
        status = Path(f"/proc/{recorder.process.pid}/status").read_text()
        recorder.stop()
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return took_s, int(peak_kib) / 1024


def starts(folder: Path) -> Iterator[tuple[str, list[float], list[float]]]:
    """Of each kind of start: seconds, and MiB; by turns."""
    kinds = {"its programs compiled": "", "its programs kept from before": str(folder / "cache")}
    start(folder, kinds["its programs kept from before"])
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, cache in kinds.items():
            took[name].append(start(folder, cache))
    for name, runs in took.items():
        yield name, [seconds for seconds, _ in runs], [mib for _, mib in runs]
