"""Refusals of `record`: one line that says what to do, the right status, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.as_nobody import as_nobody

import tracer

pytestmark = pytest.mark.beside  # their cgroups are the recorder's own, and hold one short command

StartRecording = Callable[..., Any]  # conftest.py


def in_private_mounts(script: str) -> list[str]:
    """Return a wrapper that runs `script`, and then a command, in a private mount namespace."""
    return ["unshare", "--mount", "sh", "-euc", f'{script}; exec "$@"', "sh"]


# Options that are wrong on any machine


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--limit", "100M"], "add -- CMD"),
        (["--swap", "0"], "add -- CMD"),
        (["--limit", "lots", "--", "true"], "'lots' is not a size"),
        (["--limit", "-5M", "--", "true"], "'-5M' is not a size"),
        (["--limit", "9" * 30, "--", "true"], "is not a size"),
        (["--limit", "9999999T", "--", "true"], "more than any machine has"),
        (["-d", "-1"], "-d"),
        (["-d", "0"], "-d"),
        (["-d", "nan"], "'nan' is not a time"),
        (["-d", "soon"], "'soon' is not a time: give one like 90s"),
        (["--name", ""], "--name is empty"),
        (["--max-overhead", "0%"], "'0%' is not a share"),
        (["--max-overhead", "much"], "like 2% or 0.5%"),
        (["-d", "1", "--"], "-- needs a command"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_invalid_options_are_usage_errors(
    start_recording: StartRecording, options: list[str], word: str
) -> None:
    start_recording(*options).assert_refused(2, word)


def test_unknown_verb_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "tracer", "recrod"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "memcg-tracer: error: No such command 'recrod': maybe 'record' was meant; see memcg-tracer -h\n"
    )


def test_recording_without_root_is_refused(start_recording: StartRecording) -> None:
    launch = as_nobody("tracer.cli.verbs.record", "tracer.capture.session")
    start_recording(launch=launch).assert_refused(1, "recording needs root", "sudo")


def test_root_without_capabilities_is_refused_in_the_words_of_doctor(tmp_path: Path) -> None:
    without = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*without, sys.executable, "-m", "tracer", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    reason = run("doctor", "-q").stdout.strip().removeprefix("permissions: ").replace("; ", ": ", 1)
    assert reason.startswith("root lacks CAP_BPF and CAP_PERFMON: ")
    for verb in ("record", "top", "watch", "serve", "contents"):
        refused = run(verb)
        assert (verb, refused.returncode, refused.stderr) == (verb, 1, f"memcg-tracer: error: {reason}\n")


# Requirements that the machine lacks

NO_BTF = in_private_mounts("mount -t tmpfs none /sys/kernel/btf")
NO_BCC = in_private_mounts(
    "for bcc in /usr/lib/python3*/*-packages/bcc; do mount -t tmpfs none $bcc; done"  # there, and empty
)


@pytest.fixture
def fake_bcc(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return `fake_bcc(source)`, which returns an environment whose module `bcc` has that source."""

    def make(source: str) -> dict[str, str]:
        folder = tmp_path / "python"
        folder.mkdir()
        (folder / "bcc.py").write_text(source)
        return {"PYTHONPATH": str(folder), "MEMCG_TRACER_CACHE": ""}  # else BCC may not be needed

    return make


@pytest.mark.kernel
def test_missing_btf_is_refused(start_recording: StartRecording) -> None:
    recording = start_recording("--", "true", wrapper=NO_BTF)
    recording.assert_refused(1, "no BTF at /sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y")
    assert not recording.path.exists()


@pytest.mark.kernel
def test_damaged_btf_is_refused(start_recording: StartRecording, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes()[:-100_000])
    wrapper = in_private_mounts(f"mount --bind {tmp_path}/vmlinux /sys/kernel/btf/vmlinux")
    start_recording("--", "true", wrapper=wrapper).assert_refused(1, "the BTF is damaged")


@pytest.mark.kernel
def test_missing_bcc_is_refused(start_recording: StartRecording) -> None:
    recording = start_recording("--", "true", wrapper=NO_BCC)
    recording.assert_refused(1, "BCC, the BPF Compiler Collection, is not installed", "python3-bpfcc")
    assert not recording.path.exists()


@pytest.mark.kernel
@pytest.mark.parametrize("source", ["", "raise RuntimeError('not what you think')"])
def test_wrong_bcc_is_refused(
    start_recording: StartRecording, fake_bcc: Callable[[str], dict[str, str]], source: str
) -> None:
    recording = start_recording("--", "true", wrapper=NO_BCC, env=fake_bcc(source))
    recording.assert_refused(1, "is PyPI's package, not the BPF Compiler Collection", "python3-bpfcc")


@pytest.mark.kernel
def test_wrong_bcc_is_skipped_for_the_right_one(
    start_recording: StartRecording, fake_bcc: Callable[[str], dict[str, str]]
) -> None:
    start_recording("--", "true", env=fake_bcc("")).assert_ended(0, "command_ended")


@pytest.mark.kernel
@pytest.mark.parametrize("last_act", ["sys.exit(1)", "os._exit(1)", "os.abort()"])
def test_bcc_that_ends_its_process_is_reported(
    start_recording: StartRecording, fake_bcc: Callable[[str], dict[str, str]], last_act: str
) -> None:
    """A fake module ends the process as BCC does by sys.exit, and LLVM by exit(3) and abort(3)."""
    source = f"import os, sys\ndef BPF(**_):\n    os.write(2, b'out of luck\\n')\n    {last_act}\n"
    recording = start_recording("--", "true", env=fake_bcc(source)).end()
    assert recording.status == 1
    assert [line for line in recording.stderr.splitlines() if "error" in line] == [
        "memcg-tracer: error: BCC cannot compile the BPF programs: out of luck; see memcg-tracer doctor"
    ]
    assert "Traceback" not in recording.stderr
    assert recording.stdout == ""
    assert recording.processes() == []
    recording.assert_nothing_left()


@pytest.mark.kernel
def test_recording_with_kept_programs_does_not_import_bcc(
    start_recording: StartRecording, fake_bcc: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    kept = {"MEMCG_TRACER_CACHE": str(tmp_path / "cache")}
    start_recording("--", "true", env=kept).assert_ended(0, "command_ended")
    broken = fake_bcc("import os\nos.abort()") | kept
    start_recording("-f", "--", "true", env=broken).assert_ended(0, "command_ended")


# Arguments that do not work on this machine


@pytest.mark.kernel
def test_limit_below_one_page_is_refused(start_recording: StartRecording) -> None:
    start_recording("--limit", "100", "--", "true").assert_refused(2, "less than one page")


@pytest.mark.kernel
def test_cgroup_that_does_not_exist_is_awaited(start_recording: StartRecording, memcg: Path) -> None:
    """The message lists similar names, in case of a typing error."""
    wrong = memcg.name[:-1] + "x"
    recording = start_recording("-c", wrong, "-d", "0.1")
    recording.assert_ended(0, "duration")
    (waiting,) = [line for line in recording.stderr.splitlines() if "waiting" in line]
    assert f"'{wrong}'" in waiting
    assert f"near it: /{memcg.name}" in waiting
    assert f"matched '{wrong}' during the recording" in recording.stderr.splitlines()[-2]


@pytest.mark.kernel
def test_impossible_cgroup_is_refused(start_recording: StartRecording) -> None:
    start_recording("-c", "../..").assert_refused(2, "'../..' is not below")
    start_recording("-c", "").assert_refused(2, "-c is empty")


@pytest.mark.kernel
def test_existing_output_is_refused(start_recording: StartRecording, tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    precious = tmp_path / "trace" / "precious"
    precious.write_text("mine")
    start_recording("--", "true").assert_refused(1, "exists and is not empty: choose another place")
    start_recording("-f", "--", "true").assert_refused(1, "is not a trace and will not be overwritten")
    assert precious.read_text() == "mine"


@pytest.mark.kernel
def test_force_overwrites_a_trace_only_if_recording_can_start(start_recording: StartRecording) -> None:
    start_recording("--", "true").assert_ended(0, "command_ended")
    start_recording("--", "true").assert_refused(1, "exists and is not empty")
    last = start_recording("-f", "--", "no-such-command")
    last.assert_refused(127, "command not found: 'no-such-command'")
    last.assert_trace("command_ended")
    start_recording("-f", "--", "sh", "-c", "exit 3").assert_ended(3, "command_ended")


@pytest.mark.kernel
@pytest.mark.parametrize("place", ["/proc/nowhere/trace", "file/trace", "file"])
def test_output_that_is_not_writable_is_refused(
    start_recording: StartRecording, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    recording = start_recording("-o", place, "--", "touch", "ran", output=False)
    recording.assert_refused(1, place, "choose another place")
    assert not (tmp_path / "ran").exists()


@pytest.mark.kernel
def test_parents_of_the_output_are_made(start_recording: StartRecording, tmp_path: Path) -> None:
    recording = start_recording("-o", "a/b/trace", "--", "true", output=False).end()
    assert (recording.status, recording.stdout) == (0, "a/b/trace\n")
    assert tracer.open(tmp_path / "a/b/trace").oom.empty


@pytest.mark.kernel
def test_ready_file_that_cannot_be_made_is_refused(start_recording: StartRecording, tmp_path: Path) -> None:
    place = "/proc/nowhere/ready"
    recording = start_recording("--ready-file", place, "--", "touch", "ran")
    recording.assert_refused(1, f"cannot create the ready file {place}: No such file or directory")
    recording.assert_trace("failed")
    assert not (tmp_path / "ran").exists()


@pytest.mark.kernel
def test_existing_ready_file_is_refused(start_recording: StartRecording, tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    start_recording("--ready-file", "ready", "--", "true").assert_refused(1, "exists already")


# Commands that cannot run


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("no-such-command", 127),
        ("./no-such-command", 127),
        ("", 127),
        ("\x1b[31m\nno-such-command", 127),
        ("./folder", 126),
        ("./not-executable", 126),
    ],
)
def test_command_that_cannot_run_has_the_status_of_a_shell(
    start_recording: StartRecording, tmp_path: Path, command: str, status: int
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "not-executable").touch(0o600)
    recording = start_recording("--", command)
    recording.assert_refused(status, repr(command))
    assert recording.stderr.isprintable() or recording.stderr.count("\n") == 1
    assert "\x1b" not in recording.stderr
    assert not recording.path.exists()


@pytest.mark.kernel
@pytest.mark.parametrize(("first_line", "status"), [("#!/no/such/interpreter", 127), ("\x7fELF", 126)])
def test_command_that_the_kernel_refuses_is_reported(
    start_recording: StartRecording, tmp_path: Path, first_line: str, status: int
) -> None:
    (tmp_path / "command").write_text(first_line + "\n")
    (tmp_path / "command").chmod(0o700)
    recording = start_recording("--", "./command")
    recording.assert_refused(status, "'./command'")
    recording.assert_trace("command_not_started")


# Names


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["../../x", "line\nbreak", "\x1b[31mred", "x" * 300, "…"])
def test_hostile_name_is_escaped(start_recording: StartRecording, tmp_path: Path, name: str) -> None:
    recording = start_recording("--name", name, "--", "true", output=False).end()
    assert recording.status == 0, recording.stderr
    assert [path.parent for path in tmp_path.glob("**/meta.json")] == [tmp_path / recording.stdout[:-1]]
    assert Path(recording.stdout[:-1]).parent == Path("traces")
    assert "\x1b" not in recording.stderr
    recording.assert_nothing_left()
