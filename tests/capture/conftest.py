"""A recording by the real command, for the tests of the recorder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

READY_WITHIN_S = 30.0


class Recorder:
    """`memcg-tracer record` in the background; all probes are attached once this exists."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.path = folder / "trace"
        ready = folder / "ready"
        command = [sys.executable, "-m", "tracer", "record", "-o", str(self.path), "--ready-file", str(ready)]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        try:
            self._wait_until(ready)
        except BaseException:  # Ctrl-C, too, may come before anyone knows of this process
            self.process.kill()
            raise

    def _wait_until(self, ready: Path) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"not recording: {self.process.communicate()[1]}")
            time.sleep(0.005)

    def stop(self, number: signal.Signals = signal.SIGINT) -> Path:
        """End the recording as a user would; returns the trace."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        assert output.splitlines()[-1] == str(self.path)
        return self.path


@pytest.fixture
def start_recorder(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """`start_recorder(*options, env=None)`; what is still recording at the end of the test is killed."""
    started: list[Recorder] = []

    def start(*options: str, env: dict[str, str] | None = None) -> Recorder:
        folder = tmp_path / f"recording-{len(started)}"
        folder.mkdir()
        started.append(Recorder(folder, *options, env=env))
        return started[-1]

    yield start
    for recorder in started:
        if recorder.process.poll() is None:
            recorder.process.kill()
        recorder.process.communicate()
