"""A cluster of Dask on the loopback device: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.slowdown import SLOWDOWN

_TOP: Final = Path(__file__).parents[3]
_READY_S: Final = 60 * SLOWDOWN


@dataclass(frozen=True)
class Cluster:
    """The address of the scheduler, and the processes of the workers."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def cluster(folder: Path, workers: int, *, allowed_failures: int = 3) -> Iterator[Cluster]:
    """Yield a cluster whose processes end with the block.

    A worker that dies is not started again. The work of one is suspected, and no more done after so many
    deaths; 3 is Dask's own default.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(_TOP), str(_TOP / "tests")]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
    }
    started: list[subprocess.Popen[bytes]] = []
    file = folder / "scheduler.json"
    try:
        started.append(_dask(folder, environment, "scheduler", "--port", "0", "--scheduler-file", str(file)))
        address = _address(file, started[0])
        for _ in range(workers):
            arguments = ("--no-nanny", "--nthreads", "2", "--local-directory", str(folder))
            started.append(_dask(folder, environment, "worker", address, *arguments))
        yield Cluster(address, started[1:])
    finally:
        for process in started:
            process.kill()
            process.wait()


def _dask(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
    with (folder / "cluster.log").open("ab") as log:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)


def _address(file: Path, scheduler: subprocess.Popen[bytes]) -> str:
    """Return the address that the scheduler writes into a file once it listens."""
    give_up = time.monotonic() + _READY_S
    while time.monotonic() < give_up and scheduler.poll() is None:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError):
            time.sleep(0.05)
    raise AssertionError(f"no scheduler: {file.with_name('cluster.log').read_text()}")
