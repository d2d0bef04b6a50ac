from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

INNER = """
import pytest
@pytest.mark.kernel
def test_inner():
    print("inner ran")
"""


def outcome(tmp_path: Path, switch: str | None, possible: bool) -> str:
    """The summary of a session with one kernel test, on a machine where it is possible or not."""
    conftest = (PROJECT / "tests" / "conftest.py").read_text(encoding="utf-8")
    reason = "None" if possible else "'needs a pony'"
    (tmp_path / "conftest.py").write_text(f"{conftest}\n\ndef why_impossible():\n    return {reason}\n")
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = kernel: x\n")
    environment = {key: value for key, value in os.environ.items() if key != "MEMCG_TRACER_KERNEL_TESTS"}
    if switch is not None:
        environment["MEMCG_TRACER_KERNEL_TESTS"] = switch
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", str(tmp_path)]
    result = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    return f"{result.returncode} {result.stdout}{result.stderr}"


@pytest.mark.parametrize(
    ("switch", "possible", "status", "said"),
    [
        (None, True, 0, "1 passed"),
        ("1", True, 0, "1 passed"),
        ("0", True, 0, "switched off by MEMCG_TRACER_KERNEL_TESTS=0"),
        (None, False, 0, "needs a pony"),
        ("1", False, 1, "1 error"),
        ("0", False, 0, "switched off"),
        ("yes", True, 4, "may be 1, 0 or unset"),
    ],
)
def test_the_switch_decides_what_an_impossible_kernel_test_is(
    tmp_path: Path, switch: str | None, possible: bool, status: int, said: str
) -> None:
    seen = outcome(tmp_path, switch, possible)
    assert seen.startswith(f"{status} "), seen
    assert said in seen
