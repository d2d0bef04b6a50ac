"""Recordings by the real command, swap, and processes that hold memory, for the tests of the recorder."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

SWAP_BYTES = 64 << 20

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def start_recorder(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Return `start_recorder(*options, **how)`, which returns once all probes are attached.

    `how`: further arguments of `Recorder`.

    Recorders that still run at the end of the test are killed.
    """
    folders = (tmp_path / f"recording-{number}" for number in itertools.count())
    with ExitStack() as started:

        def start(*options: str, **how: Any) -> Recorder:
            folder = next(folders)
            folder.mkdir()
            recorder = started.enter_context(Recorder(folder, "--ready-file", "ready", *options, **how))
            return recorder.wait_until_ready()

        yield start


@pytest.fixture
def swap(disk_dir: Path) -> Iterator[None]:
    """Enable a swap file until the test ends."""
    file = disk_dir / "swap"
    file.write_bytes(bytes(SWAP_BYTES))
    file.chmod(0o600)
    subprocess.run(["mkswap", str(file)], check=True, stdout=subprocess.DEVNULL)
    if _libc.swapon(str(file).encode(), 0):
        pytest.skip(f"needs swap on a file: {os.strerror(ctypes.get_errno())}")
    yield
    assert _libc.swapoff(str(file).encode()) == 0


@pytest.fixture
def holder() -> Iterator[Callable[[int], int]]:
    """Return a function that starts a process which holds so many MiB, and returns its pid."""
    started = []

    def start(mib: int) -> int:
        program = f"held = bytearray(b'x') * ({mib} << 20); print(flush=True); input()"
        argv = [sys.executable, "-I", "-S", "-c", program]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child.pid

    yield start
    for child in started:
        child.communicate()
