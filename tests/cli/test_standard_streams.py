"""Closed, full and unread standard streams, and invalid options: one line, exit status 1 or 2."""

from __future__ import annotations

import errno
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.command_lines import ROOTLESS
from support.recorded import TRACES
from support.slowdown import SLOWDOWN

from tracer import cli
from tracer.cli import standard_streams
from tracer.cli.group import VERBS, group

WriteTrace = Callable[..., Path]
PROGRAM = f"{shlex.quote(sys.executable)} -m tracer"
READING = ("explain", "timeline", "evictions", "whatif", "info", "report", "export")
ARGUMENTS = {
    **dict.fromkeys(VERBS, "-h"),
    **ROOTLESS,
    "lab": "--list",
    "doctor": "-h",
    "unit": "-- --keep 10m",
    "fleet": "{trace}",
    "push": "{trace} {out}.copy -n",
    "export": "{trace} --to folded -o -",
}
"""A quick command line of each verb, which prints something."""
IN_TURN = """
import pathlib, shlex, sys
from tracer.cli import main

statuses = pathlib.Path(sys.argv[1])
for arguments in sys.argv[2:]:
    sys.argv = ["memcg-tracer", *shlex.split(arguments)]
    try:
        main()
    except SystemExit as end:
        with statuses.open("a") as file:
            print(end.code, file=file)
"""
"""Calls `main` for each argument, with the standard streams of the process, to import pandas only once."""


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        env=os.environ | environment,
    )


def arguments_of(verb: str, trace: Path | str) -> str:
    return f"{verb} {ARGUMENTS[verb].format(trace=trace, out=f'{trace}.out')}"


def command_of(verb: str, trace: Path) -> str:
    return f"{PROGRAM} {arguments_of(verb, trace)}"


@dataclass
class Ended:
    """The results of several command lines in one process."""

    statuses: list[int]
    stdout: str
    errors: list[str]


RunInTurn = Callable[..., Ended]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there is no `traces/`: a path that is no trace is looked for as a name in each of these."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run_in_turn(tmp_path: Path) -> RunInTurn:
    def run_all(lines: Sequence[str], redirection: str = "", **environment: str) -> Ended:
        statuses = tmp_path / "statuses"
        words = [sys.executable, "-c", IN_TURN, str(statuses), *lines]
        ended = run(f"{shlex.join(words)} {redirection}", **environment)
        assert ended.returncode == 0, ended.stderr[-2000:]
        return Ended([int(line) for line in statuses.open()], ended.stdout, ended.stderr.splitlines())

    return run_all


def assert_line(line: str, words: str) -> None:
    assert line.startswith("memcg-tracer: error: ")
    assert words in line
    assert "defect" not in line


def assert_one_line(ended: subprocess.CompletedProcess[str], status: int, words: str) -> None:
    (line,) = ended.stderr.splitlines()
    assert_line(line, words)
    assert ended.returncode == status


def assert_a_line_each(ended: Ended, status: int, words: Sequence[str]) -> None:
    assert ended.statuses == [status] * len(words)
    assert len(ended.errors) == len(words)
    for line, expected in zip(ended.errors, words, strict=True):
        assert_line(line, expected)
    assert ended.stdout == ""


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_full_stdout_is_an_error(write_trace: WriteTrace, run_in_turn: RunInTurn, redirection: str) -> None:
    trace = write_trace(stacks_bytes=4096)
    ended = run_in_turn([arguments_of(verb, trace) for verb in VERBS], redirection)
    assert_a_line_each(ended, 1, ["cannot write to standard output: "] * len(VERBS))


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(:)"])
def test_full_stderr_keeps_the_status(tmp_path: Path, run_in_turn: RunInTurn, redirection: str) -> None:
    ended = run_in_turn([arguments_of(verb, tmp_path / "nowhere") for verb in READING], redirection)
    assert (ended.statuses, ended.stdout, ended.errors) == ([1] * len(READING), "", [])


def test_closed_pipe_ends_the_verb_quietly(write_trace: WriteTrace) -> None:
    ended = run(f"{PROGRAM} timeline {write_trace()} --csv --every 1ms | head -n 1; exit ${{PIPESTATUS[0]}}")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_socket_whose_other_end_is_closed_does_not_end_the_verb() -> None:
    """Any client of `serve` could end it."""
    program = (
        "import socket\n"
        "from tracer import cli\n"
        "def verb(*_):\n"
        "    ours, theirs = socket.socketpair()\n"
        "    theirs.close()\n"
        "    try: ours.send(b'answer')\n"
        "    except BrokenPipeError: print('goes on')\n"
        "    return 0\n"
        "cli._run = verb\n"
        "cli.main()\n"
    )
    ended = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "goes on\n", "")


def test_closed_stdin_is_an_error() -> None:
    assert_one_line(run(f"{PROGRAM} explain --kmsg - <&-"), 1, "cannot read standard input: ")


def test_closed_standard_streams_do_not_fail(write_trace: WriteTrace) -> None:
    assert run(f"{PROGRAM} info {write_trace()} <&- >&- 2>&-").returncode == 1


def test_closed_stream_keeps_its_descriptor_number(write_trace: WriteTrace) -> None:
    trace = write_trace()
    assert run(f"{PROGRAM} report {trace} -o {trace}.html >&- 2>&-").returncode == 1
    assert Path(f"{trace}.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("encoding", "verbs"),
    [
        ("ascii", ["explain", "timeline", "evictions", "whatif", "info", "report"]),
        ("latin-1", ["explain", "timeline"]),
        ("utf-8", ["explain", "info"]),
    ],
)
def test_names_that_the_encoding_lacks_are_escaped(
    write_trace: WriteTrace, run_in_turn: RunInTurn, verbs: list[str], encoding: str
) -> None:
    trace = write_trace(name="tr\udcffce-\u2603", comm="caf\u00e9\u2603", cgroup="/\u2603")
    lines = [arguments_of(verb, trace) for verb in verbs]
    ended = run_in_turn(lines, PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
    assert (ended.statuses, ended.errors) == ([0] * len(verbs), [])
    assert ended.stdout


def test_time_outside_of_any_trace_is_refused(write_trace: WriteTrace, run_in_turn: RunInTurn) -> None:
    moments = ("nan", "inf", "-inf", "1e400", "1677-01-01", "9999-12-31", "NaT", "1e30")
    cases = [(option, moment) for option in ("--begin", "--end", "--every") for moment in moments]
    trace = write_trace()
    ended = run_in_turn([f"timeline {trace} {option}={moment}" for option, moment in cases])
    assert_a_line_each(ended, 2, [f"{moment!r} is n" for _, moment in cases])


def test_duration_of_a_damaged_trace_is_refused(tmp_path: Path, run_in_turn: RunInTurn) -> None:
    durations = ("nan", "inf", "1e400", "0", "-1", "1677-01-01")
    ended = run_in_turn([f"record -d {duration} -o {tmp_path / 'x'} -- true" for duration in durations])
    assert_a_line_each(ended, 2, ["-d"] * len(durations))
    assert not (tmp_path / "x").exists()


def test_option_with_an_empty_value_is_refused(write_trace: WriteTrace, run_in_turn: RunInTurn) -> None:
    trace = write_trace()
    lines = [
        *("record -o '' -- true", "record -c '' -d 1", "record --name= -- true"),
        *("record --ready-file '' -d 1", "explain --kmsg ''", f"explain {trace} --kill ''"),
        *(f"timeline {trace} -c ''", f"timeline {trace} --end=", f"evictions {trace} --cgroup ''"),
        *(f"report {trace} -o ''", f"export {trace} --to folded -o ''", "lab page-cache -o ''"),
    ]
    ended = run_in_turn(lines)
    assert_a_line_each(ended, 2, [" is empty: give a value, or leave it out"] * len(lines))


def test_empty_argument_is_refused(tmp_path: Path, run_in_turn: RunInTurn) -> None:
    """`push --remove "$folder"` without a folder would remove the traces below the current one."""
    lines = [
        *("explain ''", "report '' -o x", f"push --remove '' {tmp_path}/at", f"push {tmp_path} ''"),
        *("fleet ''", f"fleet {tmp_path} ''", f"export '' --to dataset -o {tmp_path}/fleet"),
    ]
    assert_a_line_each(run_in_turn(lines), 2, ["an argument is empty: give a value"] * len(lines))
    assert not (tmp_path / "at").exists() and not (tmp_path / "fleet").exists()


def test_empty_argument_of_a_command_is_allowed() -> None:
    assert "is empty" not in run(f"{PROGRAM} record -o /proc/nowhere -- printf -c ''").stderr


def test_path_without_a_trace_is_one_line(run_in_turn: RunInTurn) -> None:
    names = ("no\nwhere", "x" * 5000, "/root/\udcff", "/dev/null", "/proc/self/mem")
    lines = [arguments_of(verb, shlex.quote(name)) for verb in READING for name in names]
    assert_a_line_each(run_in_turn(lines), 1, [""] * len(lines))


IN_A_LIBRARY = (
    "OpenBLAS error",
    "terminate called",
    "libgcc_s.so.1 must be installed",  # a thread that ends, or an exception of C++, loads it
    "cannot allocate memory for thread-local data",
    "SystemError",
    "MemoryError",
)
"""Ends that are not the program's: C++ that aborts, C code that fails without an exception, an interpreter
that prints what it cannot raise."""


@pytest.mark.parametrize("verb", ["info", "timeline"])
def test_lack_of_memory_is_one_line(write_trace: WriteTrace, verb: str) -> None:
    """Where memory ends depends on the versions of libraries, so there are several limits.

    The status may be that of a crash after the line: Arrow ends so if it could start no thread.
    """
    command = command_of(verb, write_trace())
    lines = []
    for limit_kib in range(220_000, 400_000, 45_000):
        ended = run(f"ulimit -v {limit_kib}; {command}")
        has_crashed = ended.returncode < 0 and not ended.stderr
        if ended.returncode and not has_crashed and not any(end in ended.stderr for end in IN_A_LIBRARY):
            lines += ended.stderr.splitlines()
            assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert lines, "no limit was too low"
    assert [line for line in lines if "not enough memory" not in line and "no thread" not in line] == []


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "", "library"), MemoryError()])
def test_lack_of_memory_in_the_kernel_has_the_same_line(error: Exception) -> None:
    assert cli._line(error) == ("not enough memory: free some, or raise the limit (ulimit -v)", 1)


EXAMPLE = str(TRACES / "page-cache")
LONG = [
    ["explain", EXAMPLE],
    ["explain", EXAMPLE, "--json"],
    ["timeline", EXAMPLE],
    ["evictions", EXAMPLE],
    ["report", EXAMPLE, "-f", "-o"],
    ["export", EXAMPLE, "--to", "chrome", "-f", "-o"],
    ["export", EXAMPLE, "--to", "csv", "-f", "-o"],
    ["export", EXAMPLE, "--to", "dataset", "-o"],
    ["fleet", EXAMPLE],
]


@pytest.mark.parametrize("words", LONG, ids=lambda words: " ".join(words[:1] + words[2:-1]))
def test_long_work_has_a_line_on_stderr_and_none_on_stdout(words: list[str], tmp_path: Path) -> None:
    out = [str(tmp_path / "out")] if words[-1] == "-o" else []
    done = CliRunner().invoke(group, [*words, *out], env={standard_streams.SWITCH: "0"})
    assert done.exit_code == 0
    assert re.search(r"^memcg-tracer: .*, \d+ s$", done.stderr, flags=re.MULTILINE), done.stderr
    assert not re.search(r", \d+ s$", done.stdout, flags=re.MULTILINE)


def test_progress_on_a_terminal_is_one_line_that_is_gone_at_the_end() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {standard_streams.SWITCH: "0", "TERM": "xterm"}
    code = (
        "from tracer.cli import standard_streams\n"
        "with standard_streams.progress_of('reading \\x1b[31mred') as now:\n"
        "    input()\n"
        "    now.counts(1, 3)\n"
        "    input()\n"
        "print('answer')\n"
    )
    seen = b""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, env=environment,
    ) as run:  # fmt: skip
        os.close(theirs)
        assert run.stdin is not None and run.stdout is not None
        for words in (rb"reading \x1b[31mred, ", b"1 of 3 read, "):
            while words not in seen:
                seen += os.read(ours, 4096)
            run.stdin.write(b"\n")
            run.stdin.flush()
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(ours)
        assert run.stdout.read() == b"answer\n"
    assert b"\x1b[2K" in seen.rpartition(b"read, ")[2]


def test_lines_come_at_once_and_then_at_each_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(standard_streams.SWITCH, "0")
    monkeypatch.setattr(standard_streams, "_EVERY_S", 0.01)
    seen = ""
    with standard_streams.progress_of("reading") as now:
        while seen.count("reading, 0 s\n") < 3 and now._line() < f"memcg-tracer: reading, {9 * SLOWDOWN:.0f}":
            seen += capsys.readouterr().err
    assert seen.startswith("memcg-tracer: reading, ")
    assert seen.count("\n") >= 3


def test_default_shows_nothing_of_quick_work_and_a_line_within_two_seconds() -> None:
    assert 1 <= standard_streams._FIRST_S < 2
    assert standard_streams._seconds("soon") == standard_streams._FIRST_S


def test_work_within_other_work_has_no_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(standard_streams.SWITCH, "3600")
    progress_of = standard_streams.progress_of
    with progress_of("explaining") as outer, progress_of("reading") as inner:
        assert inner is outer
        assert outer._line().startswith("memcg-tracer: reading, ")
    with standard_streams.progress_of("writing") as after:
        assert after is not outer
    assert capsys.readouterr().err == ""


def test_first_line_counts_from_the_start_of_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_streams, "_LOADED_S", time.monotonic() - 0.75)
    assert 0.5 <= standard_streams._wait_s(1.5) <= 0.75
    assert 0.5 <= standard_streams._wait_s(60) <= 59.25
    assert standard_streams._wait_s(1) == 0.5
    assert standard_streams._wait_s(0) == 0
