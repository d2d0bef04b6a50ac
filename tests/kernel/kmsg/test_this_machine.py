"""The kernel log of this machine, from programs that print one of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.kernel.kmsg import this_machine

CORPUS = Path(__file__).parent / "corpus"
WITH_A_KILL = CORPUS / "captured-6.18-v1-kmsg.log"


def program(folder: Path, name: str, prints: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{prints}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(this_machine, "_PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_journal_is_taken_before_the_kernels_own_buffer(programs: Path) -> None:
    program(programs, "journalctl", f"cat {WITH_A_KILL}")
    program(programs, "dmesg", "echo not asked >&2; exit 1")
    found = this_machine.read()
    assert found is not None
    command, log = found
    assert (command, len(log.reports)) == ("journalctl -k", 1)


@pytest.mark.parametrize("journal", ["exit 1", "echo '-- No entries --'", "echo '[    1.000000] Linux'"])
def test_journal_without_a_kill_leaves_the_buffer(programs: Path, journal: str) -> None:
    program(programs, "journalctl", journal)
    program(programs, "dmesg", f"cat {WITH_A_KILL}")
    found = this_machine.read()
    assert found is not None and found[0] == "dmesg"


def test_dmesg_without_time_formats_is_asked_plainly(programs: Path) -> None:
    program(programs, "journalctl", "exit 1")
    program(programs, "dmesg", f"[ $# = 0 ] || exit 1\ncat {WITH_A_KILL}")
    found = this_machine.read()
    assert found is not None and found[0] == "dmesg"


def test_log_without_a_kill_is_not_a_log_that_cannot_be_read(programs: Path) -> None:
    for name in ("journalctl", "dmesg"):
        program(programs, name, "echo '[    1.000000] Linux version 6.12'")
    found = this_machine.read()
    assert found is not None and found[0] == "journalctl -k" and not found[1].reports
    for name in ("journalctl", "dmesg"):
        program(programs, name, "echo 'Operation not permitted' >&2; exit 1")
    assert this_machine.read() is None


def test_programs_of_the_users_path_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("journalctl", "dmesg"):
        program(tmp_path, name, f"touch {tmp_path}/started")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    this_machine.read()
    assert not (tmp_path / "started").exists()
