"""Programs in C of tests/workloads, compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def compiled(name: str, folder: Path, *flags: str) -> Path:
    """Compile a program of tests/workloads without optimisation, so that each function keeps its frame
    pointer; skip the test if there is no compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make a program of known memory")
    usual = ["-O0", "-Wall", "-Werror", "-fno-omit-frame-pointer"]
    source = Path(__file__).parents[1] / "workloads" / f"{name}.c"
    subprocess.run([compiler, *usual, *flags, "-o", folder / name, source], check=True)
    return folder / name
