"""Programs in Go of tests/workloads, built."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def built(name: str, folder: Path, cache: Path, *flags: str) -> Path:
    """Build a program of tests/workloads, independent of its position, so that its symbols must be shifted.

    Skip the test if there is no Go. `cache` keeps Go's own library, which takes ten seconds of a CPU.
    """
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go to make a program of known memory")
    source = Path(__file__).parents[1] / "workloads" / f"{name}.go"
    settings = {"GOCACHE": str(cache), "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "HOME": "/"}
    command = [go, "build", "-buildmode=pie", *flags, "-o", str(folder / name), str(source)]
    subprocess.run(command, cwd=folder, env=os.environ | settings, check=True)
    return folder / name
