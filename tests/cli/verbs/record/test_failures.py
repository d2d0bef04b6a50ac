"""Failures of the disk or of the recorder while CMD runs: they do not end CMD."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.losses import lost_records

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

StartRecording = Callable[..., Any]  # conftest.py

PAGES, ROUNDS = 64, 150
CHURN = f"for i in $(seq {ROUNDS}); do head -c {PAGES * 4096} /dev/zero > churned; rm churned; done"
FILL = "dd if=/dev/zero of=disk/filler bs=4k status=none; true"
STATUS = 7


def on_a_small_disk(mount: str) -> list[str]:
    """Return a wrapper: a command with a private filesystem at `disk`, from which the trace is copied."""
    script = f'{mount}; status=0; "$@" || status=$?; cp -a disk/trace trace; exit $status'
    return ["unshare", "--mount", "sh", "-euc", script, "sh"]


@pytest.fixture
def start_on_disk(start_recording: StartRecording, tmp_path: Path) -> Callable[..., Any]:
    """Return `start_on_disk(script, *options, mount=...)`, which records a CMD onto a small disk.

    CMD runs the script, and ends with `STATUS`.
    """
    (tmp_path / "disk").mkdir()

    def start(script: str, *options: str, mount: str = "mount -t tmpfs -o size=8m,mode=700 none disk") -> Any:
        command = ["--", "sh", "-c", f"{script}; touch ended; exit {STATUS}"]
        name = f"disk-{tmp_path.parent.name}"
        return start_recording(
            *["-o", "disk/trace", "--name", name, *options, *command],
            output=False,
            wrapper=on_a_small_disk(mount),
        )

    return start


def assert_command_ran_to_its_end(recording: Any) -> None:
    assert (recording.folder / "ended").exists(), "the command was ended"
    assert recording.processes() == []
    assert not [*memory_hierarchy().mount.glob(f"*disk-{recording.folder.parent.name}")]


def warnings(recording: Any) -> list[str]:
    """Return the warnings, but those of the cgroup that a killed recorder of another test left."""
    lines = [line for line in recording.stderr.splitlines() if "warning: " in line]
    return [line for line in lines if "the cgroup of a recording that was killed" not in line]


def churned_pages(recording: Any) -> int:
    """Return the number of pages that CMD added to the page cache, in all rounds."""
    pagecache = tracer.open(recording.path).pagecache
    files = tracer.open(recording.path).inodes
    churned = files[files["path"].str.endswith("/churned").fillna(False)]["inode_id"]
    added = pagecache[(pagecache["op"] == "add") & pagecache["inode_id"].isin(churned)]
    return int(added["nr_pages"].sum())


def test_full_disk_does_not_disturb_the_command(start_on_disk: Callable[..., Any]) -> None:
    recording = start_on_disk(f"sleep 0.5; {FILL}; {CHURN}").end()
    assert_command_ran_to_its_end(recording)
    assert (recording.status, recording.stdout) == (1, "")
    assert len(warnings(recording)) == 1
    assert "cannot write the trace disk/trace: No space left on device; recording goes on" in recording.stderr
    last = recording.stderr.splitlines()[-1]
    assert last.startswith(
        "memcg-tracer: error: cannot write the trace disk/trace: No space left on device; "
    )
    assert "readable" in last
    trace = tracer.open(recording.path)
    assert set(trace.samples["source"]) >= {"start", "periodic"}
    assert recording.meta["end_reason"] in ("write_failed", None)  # None: meta.json could not be written


def test_disk_with_room_again_gets_all_rows(start_on_disk: Callable[..., Any]) -> None:
    recording = start_on_disk(f"sleep 0.5; {FILL}; {CHURN}; sleep 1; rm disk/filler; {CHURN}").end()
    assert_command_ran_to_its_end(recording)
    assert (recording.status, recording.stdout) == (STATUS, "disk/trace\n"), recording.stderr
    begun, ended = warnings(recording)
    assert "cannot write the trace disk/trace: No space left on device" in begun
    assert "the trace disk/trace can be written again: no row was lost" in ended
    assert recording.meta["end_reason"] == "command_ended"
    assert lost_records(tracer.open(recording.path)) == {}
    assert churned_pages(recording) == 2 * ROUNDS * PAGES


def test_read_only_disk_does_not_disturb_the_command(
    start_on_disk: Callable[..., Any], tmp_path: Path
) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    abort = "sleep 0.5; mount -o remount,abort disk 2> refused"  # as after an error of the device
    recording = start_on_disk(f"{abort}; {CHURN}", mount="mount -o loop image disk").end()
    assert_command_ran_to_its_end(recording)
    assert recording.status == 1
    assert len(warnings(recording)) == 1
    last = recording.stderr.splitlines()[-1]
    assert last.startswith("memcg-tracer: error: cannot write the trace disk/trace: ")
    assert "Read-only file system" in last or "Input/output error" in last


def test_renamed_directory_is_printed_where_it_is(start_recording: StartRecording) -> None:
    recording = start_recording("--", "sh", "-c", f"mv trace moved; mkdir trace; exit {STATUS}").end()
    assert recording.status == STATUS
    assert recording.stdout == f"{recording.path.with_name('moved')}\n"
    assert (recording.path.with_name("moved") / "meta.json").exists()


def test_removed_directory_does_not_disturb_the_command(start_recording: StartRecording) -> None:
    remove = "until rm -r trace; do :; done"  # rm fails if the recorder makes a file meanwhile
    script = f"sleep 0.5; {remove}; {CHURN}; sleep 0.5; touch ended; exit {STATUS}"
    recording = start_recording("--", "sh", "-c", script).end()
    assert_command_ran_to_its_end(recording)
    assert (recording.status, recording.stdout) == (1, "")
    (begun,) = warnings(recording)
    assert "its directory was removed; recording goes on in memory" in begun
    last = recording.stderr.splitlines()[-1]
    assert "error: cannot write the trace" in last
    assert "nothing of it is left" in last
    assert not recording.path.exists()
    recording.assert_nothing_left()


def test_file_size_limit_does_not_disturb_the_recording(start_recording: StartRecording) -> None:
    recording = start_recording(
        "--", "sh", "-c", f"{CHURN}; touch ended; exit {STATUS}", wrapper=["prlimit", f"--fsize={1 << 20}"]
    )
    recording.assert_ended(STATUS, "command_ended")
    assert_command_ran_to_its_end(recording)
    assert churned_pages(recording) == ROUNDS * PAGES
    assert lost_records(tracer.open(recording.path)) == {}


def launch_with(defect: str) -> Sequence[str]:
    """Return the script for a recording with a bug: `defect` runs with `Pipeline` in scope."""
    return (
        "-c",
        f"import tracer.cli\nfrom tracer.capture.pipeline import Pipeline\n{defect}\ntracer.cli.main()",
    )


@pytest.mark.parametrize("method", ["read_rings", "sample", "flush", "look"])
def test_recorder_bug_does_not_disturb_the_command(start_recording: StartRecording, method: str) -> None:
    defect = (
        f"inner = Pipeline.{method}\n"
        "def failing(self):\n"
        "    if self.startup_s: raise RuntimeError('oops')\n"
        "    inner(self)\n"
        f"Pipeline.{method} = failing"
    )
    script = f"sleep 0.5; {CHURN}; touch ended; exit {STATUS}"
    recording = start_recording("--", "sh", "-c", script, launch=launch_with(defect)).end()
    assert_command_ran_to_its_end(recording)
    assert (recording.status, recording.stdout) == (1, "")
    assert "warning: recording failed (oops): the command goes on without it" in recording.stderr
    assert "error: a bug in memcg-tracer (RuntimeError: oops)" in recording.stderr.splitlines()[-1]
    recording.assert_trace("failed")
    recording.assert_nothing_left()


def test_signal_after_a_recorder_bug_ends_the_command(start_recording: StartRecording) -> None:
    defect = "def failing(self): raise RuntimeError('oops')\nPipeline.sample = failing"
    recording = start_recording("--", "sh", "-c", "touch begun; sleep 1000", launch=launch_with(defect))
    recording.wait_for((recording.folder / "begun").exists)
    recording.wait_for(lambda: "recording failed" in recording.process.stderr.readline().decode())
    recording.process.terminate()
    recording.end()
    assert recording.status == 1
    recording.assert_nothing_left()
