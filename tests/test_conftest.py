from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

INNER = """
import time
import pytest
@pytest.mark.kernel
@pytest.mark.timeout({limit_s})
def test_inner():
    time.sleep({takes_s})
"""


def outcome(
    tmp_path: Path,
    switch: str | None,
    possible: bool,
    *,
    takes_s: float = 0,
    limit_s: float = 60,
    slowdown: str | None = None,
) -> str:
    """Return the exit status and the output of a session with one kernel test, which may be impossible."""
    conftest = (PROJECT / "tests" / "conftest.py").read_text(encoding="utf-8")
    reason = "None" if possible else "'needs a pony'"
    (tmp_path / "conftest.py").write_text(f"{conftest}\n\ndef why_impossible():\n    return {reason}\n")
    (tmp_path / "test_inner.py").write_text(INNER.format(takes_s=takes_s, limit_s=limit_s))
    ini = f"[pytest]\nmarkers = kernel: x\npythonpath = {PROJECT / 'tests'}\n"
    (tmp_path / "pytest.ini").write_text(ini)
    changed = {"MEMCG_TRACER_KERNEL_TESTS": switch, "MEMCG_TRACER_SLOWDOWN": slowdown}
    environment = {key: value for key, value in os.environ.items() if key not in changed}
    environment |= {key: value for key, value in changed.items() if value is not None}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the other plugins take half of the time
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout"]
    command = [sys.executable, "-m", "pytest", *plugins, "-ra", str(tmp_path)]
    result = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    return f"{result.returncode} {result.stdout}{result.stderr}"


@pytest.mark.parametrize(
    ("switch", "possible", "status", "expected"),
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
def test_kernel_test_is_run_skipped_or_failed_by_the_switch(
    tmp_path: Path, switch: str | None, possible: bool, status: int, expected: str
) -> None:
    output = outcome(tmp_path, switch, possible)
    assert output.startswith(f"{status} "), output
    assert expected in output


@pytest.mark.parametrize(
    ("slowdown", "expected"), [(None, "1 failed"), ("1", "1 failed"), ("300", "1 passed")]
)
def test_time_limit_on_a_slow_machine_is_longer(tmp_path: Path, slowdown: str | None, expected: str) -> None:
    assert expected in outcome(tmp_path, None, True, takes_s=0.5, limit_s=0.2, slowdown=slowdown)
