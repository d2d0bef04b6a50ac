"""Streams that are closed, full or not read, and what no option can mean: one line, status 1 or 2."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.cli.verbs import VERBS

WriteTrace = Callable[..., Path]
PROGRAM = f"{shlex.quote(sys.executable)} -m tracer"
READING = ("explain", "timeline", "evictions", "info", "report", "export")
ARGUMENTS = {
    "record": "-h",
    "lab": "--list",
    "doctor": "-h",
    "completion": "bash",
    "report": "{trace} -f -o {trace}.html",
    "export": "{trace} --to folded -o -",
}


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        env=os.environ | environment,
    )


def command_of(verb: str, trace: Path) -> str:
    return f"{PROGRAM} {verb} {ARGUMENTS.get(verb, '{trace}').format(trace=trace)}"


def assert_one_line(ended: subprocess.CompletedProcess[str], status: int, words: str) -> None:
    (line,) = ended.stderr.splitlines()
    assert line.startswith("memcg-tracer: error: ")
    assert words in line
    assert "defect" not in line
    assert ended.returncode == status


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_standard_output_that_takes_nothing(write_trace: WriteTrace, verb: str, redirection: str) -> None:
    ended = run(f"{command_of(verb, write_trace(stacks_bytes=4096))} {redirection}")
    assert_one_line(ended, 1, "cannot write to standard output: ")


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(:)"])
def test_standard_error_that_takes_nothing_leaves_the_status(
    tmp_path: Path, verb: str, redirection: str
) -> None:
    ended = run(f"{command_of(verb, tmp_path / 'nowhere')} {redirection}")
    assert (ended.returncode, ended.stdout) == (1, "")


def test_a_reader_that_has_enough_ends_it_quietly(write_trace: WriteTrace) -> None:
    ended = run(f"{PROGRAM} timeline {write_trace()} --csv --every 1ms | head -n 1")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_standard_input_that_is_closed() -> None:
    assert_one_line(run(f"{PROGRAM} explain --kmsg - <&-"), 1, "cannot read standard input: ")


def test_all_streams_closed(write_trace: WriteTrace) -> None:
    assert run(f"{PROGRAM} info {write_trace()} <&- >&- 2>&-").returncode == 1


def test_no_file_takes_the_number_of_a_closed_stream(write_trace: WriteTrace) -> None:
    trace = write_trace()
    assert run(f"{PROGRAM} report {trace} -o {trace}.html >&- 2>&-").returncode == 1
    assert Path(f"{trace}.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("verb", [*READING[:4], "report"])
def test_names_that_the_encoding_lacks(write_trace: WriteTrace, verb: str, encoding: str) -> None:
    trace = write_trace(name="tr\udcffce-\u2603", comm="caf\u00e9\u2603", cgroup="/\u2603")
    ended = run(command_of(verb, trace), PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "1e400", "1677-01-01", "9999-12-31", "NaT", "1e30"])
@pytest.mark.parametrize("option", ["--begin", "--end", "--every"])
def test_a_time_that_no_trace_has(write_trace: WriteTrace, option: str, moment: str) -> None:
    assert_one_line(run(f"{PROGRAM} timeline {write_trace()} {option}={moment}"), 2, f"{moment!r} is n")


@pytest.mark.parametrize("duration", ["nan", "inf", "1e400", "0", "-1", "1677-01-01"])
def test_a_duration_that_no_recording_has(tmp_path: Path, duration: str) -> None:
    assert_one_line(run(f"{PROGRAM} record -d {duration} -o {tmp_path / 'x'} -- true"), 2, "-d")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            "record -o '' -- true",
            "record -c '' -d 1",
            "record --name= -- true",
            "record --ready-file '' -d 1",
        ),
        *(
            "explain --kmsg ''",
            "explain {trace} --kill ''",
            "timeline {trace} -c ''",
            "timeline {trace} --end=",
        ),
        *("evictions {trace} --cgroup ''", "report {trace} -o ''", "export {trace} --to folded -o ''"),
        *("lab page-cache -o ''",),
    ],
)
def test_an_empty_value_is_none(write_trace: WriteTrace, arguments: str) -> None:
    ended = run(f"{PROGRAM} {arguments.format(trace=write_trace())}")
    assert_one_line(ended, 2, " is empty: give a value, or leave it out")


def test_an_empty_argument_of_a_command_is_its_own() -> None:
    assert "is empty" not in run(f"{PROGRAM} record -o /proc/nowhere -- printf -c ''").stderr


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize("name", ["", "no\nwhere", "x" * 5000, "/root/\udcff", "/dev/null", "/proc/self/mem"])
def test_a_trace_that_is_none(verb: str, name: str) -> None:
    assert_one_line(run(command_of(verb, Path("TRACE")).replace("TRACE", shlex.quote(name))), 1, "")


@pytest.mark.parametrize("limit_kib", [300_000, 400_000, 500_000])
@pytest.mark.parametrize("verb", ["explain", "timeline", "info"])
def test_without_memory(write_trace: WriteTrace, verb: str, limit_kib: int) -> None:
    ended = run(f"ulimit -v {limit_kib}; {command_of(verb, write_trace())}")
    if ended.returncode:
        (line,) = ended.stderr.splitlines()
        assert "memory" in line.lower()
        assert "defect" not in line
