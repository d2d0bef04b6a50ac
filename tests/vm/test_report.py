"""The outcome of a guest: tests that were not run, and guests that died, have not passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vm import report

JUNIT = """\
<testsuites><testsuite>
<testcase classname="tests.a" name="good" time="1.5" />
<testcase classname="tests.a" name="elsewhere" time="0"><skipped message="needs a pony" /></testcase>
{more}
</testsuite></testsuites>
"""
FAILED = '<testcase classname="tests.a" name="bad"><failure message="1 != 2&#10;more">x</failure></testcase>'
SIGNAL = {"name": "OOM kill", "hook": "raw_tracepoint mark_victim", "meaning": "exact", "detail": ""}


def results(folder: Path, status: int, more: str = "") -> Path:
    (folder / "status").write_text(f"{status}\n")
    (folder / "pytest.xml").write_text(JUNIT.format(more=more))
    (folder / "doctor.json").write_text(json.dumps({"signals": [SIGNAL]}))
    return folder


def test_guest_passed_lists_skips_and_hooks(tmp_path: Path) -> None:
    found = report.guest("6.12, cgroup v2", results(tmp_path, 0), 61.2)
    assert found.passed
    title, skip, signal = str(found).splitlines()
    assert title == "PASS  6.12, cgroup v2: 1 passed, 0 failed, 1 skipped, 0 unsteady, in 61 s"
    assert skip.split() == ["skipped", "tests.a::elsewhere:", "needs", "a", "pony"]
    assert signal.split() == ["signal", "OOM", "kill", "exact", "raw_tracepoint", "mark_victim"]


def test_guest_failed_names_test(tmp_path: Path) -> None:
    found = report.guest("6.12", results(tmp_path, 1, FAILED), 1)
    assert not found.passed
    assert "      failed  tests.a::bad: 1 != 2" in str(found).splitlines()


def test_guest_whose_failed_test_passed_when_run_again_passed_and_names_it(tmp_path: Path) -> None:
    results(tmp_path, 0, FAILED)
    (tmp_path / "again.xml").write_text('<a><testcase classname="tests.a" name="bad" time="2" /></a>')
    found = report.guest("6.12", tmp_path, 90)
    assert found.passed
    assert found.title == "6.12: 1 passed, 0 failed, 1 skipped, 1 unsteady, in 90 s"
    assert "      unsteady  tests.a::bad: 1 != 2" in str(found).splitlines()


def test_guest_whose_test_failed_twice_failed(tmp_path: Path) -> None:
    results(tmp_path, 1, FAILED)
    (tmp_path / "again.xml").write_text(f"<a>{FAILED}</a>")
    found = report.guest("6.12", tmp_path, 90)
    assert not found.passed
    assert found.title == "6.12: 1 passed, 1 failed, 1 skipped, 0 unsteady, in 90 s"


@pytest.mark.parametrize("again", ["", '<testcase classname="tests.a" name="bad"><skipped/></testcase>'])
def test_guest_whose_failed_test_was_not_run_again_failed(tmp_path: Path, again: str) -> None:
    """pytest calls a run without failures a success, whatever it skipped."""
    results(tmp_path, 0, FAILED)
    (tmp_path / "again.xml").write_text(f"<a>{again}</a>")
    assert not report.guest("6.12", tmp_path, 90).passed


def test_guest_without_tests_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("5\n")
    (tmp_path / "pytest.log").write_text("no tests ran in 2 s\n")
    found = report.guest("6.12", tmp_path, 1)
    assert not found.passed
    assert {"pytest ended with status 5", "no tests ran in 2 s"} <= set(found.details)


def test_guest_with_skips_only_is_no_pass(tmp_path: Path) -> None:
    found = report.guest("6.12", results(tmp_path, 0), 1)
    (tmp_path / "pytest.xml").write_text(
        JUNIT.format(more="").replace("good", "bad").replace(' time="1.5" />', "><skipped/></testcase>")
    )
    assert found.passed
    assert not report.guest("6.12", tmp_path, 1).passed


def test_guest_that_refuses_a_program_is_no_pass(tmp_path: Path) -> None:
    """Its tests pass: what an optional signal adds is missing."""
    refused = SIGNAL | {"hook": None, "meaning": "absent", "detail": f"{report.REFUSED} mark_victim: why"}
    (results(tmp_path, 0) / "doctor.json").write_text(json.dumps({"signals": [SIGNAL, refused]}))
    assert not report.guest("6.12", tmp_path, 1).passed


def test_guest_dead_is_no_pass_with_console(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("Kernel panic - not syncing\n")
    found = report.guest("6.12", tmp_path, 1)
    assert not found.passed
    assert "Kernel panic - not syncing" in found.details
    assert not report.arm64(tmp_path).passed


def test_arm64_compilation_is_reported(tmp_path: Path) -> None:
    (tmp_path / "arm64.log").write_text("hooked by kprobe: 38 programs\n")
    (tmp_path / "arm64.status").write_text("0\n")
    assert report.arm64(tmp_path) == report.Report(
        True, "the programs compile for arm64", ["hooked by kprobe: 38 programs"]
    )
    (tmp_path / "arm64.status").write_text("1\n")
    assert not report.arm64(tmp_path).passed
