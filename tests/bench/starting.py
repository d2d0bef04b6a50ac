"""The time and memory until a recorder is ready, with its programs compiled or from the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.recorder import Recorder

ROUNDS: Final = 7


def start(folder: Path, cache: str) -> tuple[float, float]:
    """Start a recorder; return the seconds until all probes are attached, and its peak memory in MiB."""
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
    """Start recorders of each kind by turns; yield (kind, seconds of each start, MiB of each start)."""
    kinds = {"programs compiled": "", "programs from the cache": str(folder / "cache")}
    start(folder, kinds["programs from the cache"])
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, cache in kinds.items():
            took[name].append(start(folder, cache))
    for name, runs in took.items():
        yield name, [seconds for seconds, _ in runs], [mib for _, mib in runs]
