"""`watch --out URL`: traces are in the spool and at the URL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.storing.spooled_trace import contents
from support.watcher import Watcher

import tracer

StartWatcher = Callable[..., Watcher]


@pytest.mark.kernel
@pytest.mark.beside
def test_trace_is_copied_by_a_child_while_watch_goes_on(
    start_watcher: StartWatcher, tmp_path: Path, memcg: Path
) -> None:
    folder = tmp_path / "watch"
    environment = {**os.environ, "STATE_DIRECTORY": str(folder / "traces")}
    watcher = start_watcher(
        *("-c", memcg.name, "--out", f"file://{tmp_path}/at"),
        folder=folder,
        env=environment,
        is_soon_quiet=True,
    )
    assert f"and copies to file://{tmp_path}/at" in watcher.stderr
    watcher.send(signal.SIGUSR1)
    watcher.wait_for(lambda: "copied to file://" in watcher.stderr)
    (trace,) = watcher.traces
    watcher.stop()
    assert contents(tmp_path / "at" / trace.name) == contents(trace)
    assert tracer.open(tmp_path / "at" / trace.name).meta["ended"] is not None
