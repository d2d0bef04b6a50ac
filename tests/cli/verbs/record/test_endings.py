"""Ends of a recording: the status, the reason, a complete trace, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

StartRecording = Callable[..., Any]  # conftest.py

PAGES = 259


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_recording_normally(
    start_recording: StartRecording, memcg: Path, number: signal.Signals
) -> None:
    recording = start_recording("-c", memcg.name, "--ready-file", "ready").wait_until_ready()
    recording.process.send_signal(number)
    recording.assert_ended(0, number.name)
    assert "command_status" not in recording.meta


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_command_as_well(
    start_recording: StartRecording, tmp_path: Path, number: signal.Signals
) -> None:
    """The command says that it is ready: SIGINT before that would be an exception of its interpreter."""
    waits = "import signal; signal.signal(2, signal.SIG_DFL); open('waits', 'x'); signal.pause()"
    recording = start_recording("--", sys.executable, "-c", waits)
    recording.wait_for((tmp_path / "waits").exists)
    recording.process.send_signal(number)
    recording.assert_ended(128 + number, number.name)
    assert recording.meta["command_status"] == -number


def test_command_that_ignores_sigterm_is_killed_and_recorded(
    start_recording: StartRecording, tmp_path: Path
) -> None:
    stubborn = 'trap "head -c 1M /dev/zero > late" TERM; touch stubborn; while :; do sleep 0.1; done'
    recording = start_recording("--", "sh", "-c", stubborn)
    recording.wait_for((tmp_path / "stubborn").exists)
    recording.process.send_signal(signal.SIGTERM)
    recording.assert_ended(128 + signal.SIGKILL, "SIGTERM")
    assert added_pages(recording.path, tmp_path / "late") == 256


def test_second_signal_ends_the_recording_at_once(start_recording: StartRecording, tmp_path: Path) -> None:
    stubborn = 'trap "touch asked" INT; touch stubborn; while :; do sleep 0.1; done'
    recording = start_recording("--", "sh", "-c", stubborn)
    recording.wait_for((tmp_path / "stubborn").exists)
    recording.process.send_signal(signal.SIGINT)
    recording.wait_for((tmp_path / "asked").exists)
    recording.process.send_signal(signal.SIGINT)
    recording.assert_ended(128 + signal.SIGKILL, "SIGINT")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_start_leaves_nothing(
    start_recording: StartRecording, tmp_path: Path, number: signal.Signals
) -> None:
    """The signal comes while the programs are compiled; the command never runs."""
    recording = start_recording("--", "touch", "ran")
    recording.wait_for(recording.cgroups)
    recording.process.send_signal(number)
    recording.assert_ended(128 + number, number.name)
    assert not (tmp_path / "ran").exists()


def test_duration_ends_the_recording(start_recording: StartRecording, memcg: Path) -> None:
    recording = start_recording("-d", "0.2", "-c", memcg.name)
    recording.assert_ended(0, "duration")
    assert "until 0.2 s have passed" in recording.stderr


def test_duration_ends_the_command(start_recording: StartRecording) -> None:
    recording = start_recording("-d", "0.2", "--", "sleep", "1000")
    recording.assert_ended(128 + signal.SIGTERM, "duration")
    assert "until the command ends or 0.2 s have passed" in recording.stderr


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 41", 41),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -INT $$", 130),
        ("exit 137", 137),
        ("sh -c 'kill -KILL $$'; exit $?", 137),  # a child is killed
        ("echo said; sleep 1000 & setsid sleep 1000 & exit 5", 5),  # children that would outlive it
    ],
)
def test_status_of_the_command_is_returned(start_recording: StartRecording, script: str, status: int) -> None:
    recording = start_recording("--limit", "50M", "--", "sh", "-c", script)
    recording.assert_ended(status, "command_ended")
    is_signal = script.endswith("$$")
    assert recording.meta["command_status"] == (128 - status if is_signal else status)
    if " 0 OOM kills" in recording.stderr:  # other kills on the machine are in the trace as well
        is_killed = script == "kill -KILL $$"
        assert ("ended by SIGKILL, but not by the OOM killer" in recording.stderr) == is_killed
        is_like_killed = status == 137 and not is_killed
        assert ("status 137, but the OOM killer killed nothing" in recording.stderr) == is_like_killed
    assert recording.stdout.startswith("said\n" if "said" in script else str(recording.path))


def test_command_starts_after_the_probes_are_attached(start_recording: StartRecording) -> None:
    """The command finds the ready file, and the trace has the command's first page."""
    script = (
        "test -e ready || exit 10\n"
        """grep -q '"hook": "typed_tracepoint mark_victim"' trace/meta.json || exit 11\n"""
        f"head -c {PAGES * 4096} /dev/zero > written"
    )
    recording = start_recording("--ready-file", "ready", "--", "sh", "-c", script)
    recording.assert_ended(0, "command_ended")
    assert added_pages(recording.path, recording.folder / "written") == PAGES


def test_ready_file_appears_with_the_start(start_recording: StartRecording) -> None:
    recording = start_recording("--ready-file", "ready", "--", "true")
    recording.wait_for(lambda: recording.cgroups() or recording.ready_file.exists())
    assert not recording.ready_file.exists()
    recording.wait_until_ready()
    assert recording.meta["probes"]["OOM kill"]["hook"] == "typed_tracepoint mark_victim"
    recording.assert_ended(0, "command_ended")


def test_closed_stderr_does_not_end_the_recording(start_recording: StartRecording) -> None:
    """The recording goes on without a reader of its messages, and leaves no cgroup behind."""
    reader, writer = os.pipe()
    os.close(reader)
    recording = start_recording("--", "sh", "-c", "exit 6", stderr=writer)
    os.close(writer)
    recording.assert_ended(6, "command_ended")


@pytest.mark.alone  # any recorder that starts removes leftovers
def test_leftovers_of_a_killed_recorder_are_removed(start_recording: StartRecording) -> None:
    first = start_recording("--ready-file", "ready", "--", "sleep", "1000").wait_until_ready()
    first.wait_for(lambda: "tracing (ready" in _read_line(first))
    first.process.kill()
    first.process.wait()
    (left,) = first.cgroups()
    assert first.processes() != []  # the command goes on
    second = start_recording("-f", "--", "true")
    second.assert_ended(0, "command_ended")
    assert f"removed {left.name}, the cgroup of a recording that was killed" in second.stderr
    first.assert_nothing_left()


def added_pages(trace: Path, file: Path) -> int:
    """Return the number of pages of the file that were added to the page cache."""
    pagecache = tracer.open(trace).pagecache
    added = (pagecache["ino"] == file.stat().st_ino) & (pagecache["op"] == "add")
    return int(pagecache.loc[added, "nr_pages"].sum())


def _read_line(recording: Any) -> str:
    line: bytes = recording.process.stderr.readline()
    return line.decode()
