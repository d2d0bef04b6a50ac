"""Recordings by the real command, for the tests of the recorder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.recorder import Recorder


@pytest.fixture
def start_recorder(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Return `start_recorder(*options, env=None)`, which returns once all probes are attached.

    Recorders that still run at the end of the test are killed.
    """
    folders = (tmp_path / f"recording-{number}" for number in itertools.count())
    with ExitStack() as started:

        def start(*options: str, env: dict[str, str] | None = None) -> Recorder:
            folder = next(folders)
            folder.mkdir()
            recorder = started.enter_context(Recorder(folder, "--ready-file", "ready", *options, env=env))
            return recorder.wait_until_ready()

        yield start
