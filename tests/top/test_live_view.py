"""`top` as a user runs it: live kills on a terminal, tables in a pipe, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.schemas import require_form
from support.terminals.on_pty import TOP, WITHIN_S, OnPty, on_pty
from workloads import killed_work

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.trace import layout
from tracer.watch.place import parse_name

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

LIMIT_BYTES: Final = 48 << 20
MOST_RESIDENT_BYTES: Final = 120 << 20


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("seen", LIMIT_BYTES, 0) as directory:
        yield directory


def script(*arguments: str) -> str:
    return (
        f"import sys\nsys.argv = {['memcg-tracer', 'top', *arguments]!r}\nfrom tracer.cli import main\nmain()"
    )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracer", "top", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN_S,
    )


def kill_in(memcg: Path, folder: Path) -> None:
    record = folder / "kills"
    record.write_bytes(bytes(24))
    subprocess.run([sys.executable, killed_work.__file__, str(memcg), str(record)], check=True)


def traces_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("traces/top-*/*") if parse_name(path.name)]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def screen(limited: Path, tmp_path: Path) -> Iterator[OnPty]:
    name = limited.name.encode()[-20:]
    with on_pty(script("-c", str(limited)), b"all probes are attached", size=(40, 120), cwd=tmp_path) as one:
        one.wait_for(name)
        yield one


def test_live_kill_is_shown_with_its_sentence_and_explained(
    limited: Path, tmp_path: Path, screen: OnPty
) -> None:
    kill_in(limited, tmp_path)
    screen.wait_for(b"OOM kill of ")
    screen.wait_for(b"1 kill,")
    screen.wait_for(b"asked for more memory and was killed")
    (trace,) = traces_in(tmp_path)
    screen.forget()
    screen.send(b"x")
    screen.wait_for(b"Cause: ")
    screen.wait_for(b"\x1b[1;36mWhat to do")  # in the colours of `explain`
    screen.forget()
    screen.send(b"q\r")
    screen.wait_for(b"anonymous memory")
    screen.send(b"\t")
    screen.wait_for(b"resident memory now")
    screen.send(b"\t")
    screen.wait_for(b"old (r reads it again)")
    assert resident_bytes(screen.child.pid) < MOST_RESIDENT_BYTES
    screen.send(b"qq")
    status, stderr = screen.end()
    assert status == 0, stderr
    assert screen.modes == screen.before
    assert b"\x1b[?1049l" in screen.read
    assert b"\x1b[?25h" in screen.read
    assert f"memcg-tracer: 1 trace is in {trace.parent.relative_to(tmp_path)} (" in stderr.decode()
    (report,) = tracer.open(trace).explain()
    assert report.limit_owner.cgroup == f"/{limited.relative_to(memory_hierarchy().mount)}"


def test_x_explains_the_newest_kill_while_its_trace_grows_and_q_completes_it(
    limited: Path, tmp_path: Path, screen: OnPty
) -> None:
    for number in (1, 2):
        kill_in(limited, tmp_path)
        screen.wait_for(f"{number} kill".encode())
    screen.wait_for(b"a trace is being written")
    (trace,) = traces_in(tmp_path)
    screen.forget()
    screen.send(b"x")
    screen.wait_for(b"number 2, ")
    assert (trace / layout.JOURNAL).exists()  # else it was finished, and this test is about nothing
    screen.send(b"qq")
    status, stderr = screen.end()
    assert status == 0, stderr
    assert not (trace / layout.JOURNAL).exists()
    assert re.fullmatch(
        r"memcg-tracer: 1 trace is in \S+ \(\d+(\.\d+)? [KM]iB\)", stderr.decode().splitlines()[-1]
    )


@pytest.mark.beside
def test_key_w_writes_a_trace_of_what_is_held(screen: OnPty, tmp_path: Path) -> None:
    screen.send(b"w")
    screen.wait_for(b"a trace is being written: traces/top-")
    screen.wait_for(b"the trace is complete: traces/top-")
    (trace,) = traces_in(tmp_path)
    assert tracer.open(trace).meta["history"]["reason"] == "request"


@pytest.mark.beside
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_view_with_a_restored_terminal_and_no_folder(
    screen: OnPty, tmp_path: Path, number: signal.Signals
) -> None:
    assert screen.modes != screen.before
    screen.child.send_signal(number)
    status, stderr = screen.end()
    assert (status, screen.modes) == (0, screen.before), stderr
    assert screen.read.rindex(b"\x1b[?1049l") > screen.read.rindex(b"\x1b[?1049h")
    assert not (tmp_path / "traces").exists()


@pytest.mark.beside
def test_screen_without_colour_has_none_and_follows_its_size(limited: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": (24, 80), "cwd": tmp_path, "env": {"NO_COLOR": "1"}}
    with on_pty(script("-c", str(limited)), b"all probes are attached", **options) as screen:
        screen.wait_for(b"KILL IN")
        screen.forget()
        termios.tcsetwinsize(screen.master, (30, 120))
        screen.wait_for(b"EVICT/s")
        screen.send(b"q")
        assert screen.end()[0] == 0
        assert not re.search(rb"\x1b\[[\d;]*(3[0-8]|4[0-8])[\d;]*m", screen.read)


@pytest.mark.beside
def test_json_has_a_line_for_each_cgroup_and_interval(
    limited: Path, tmp_path: Path, start_workload: Callable[..., Any]
) -> None:
    below = limited / "below"
    below.mkdir()
    try:
        workload = start_workload(below, "anon", str(13 << 20))
        assert [workload.advance() for _ in range(2)][-1] == "done anon"
        lines = run(tmp_path, "-c", str(limited), "-i", "0.5", "-n", "3", "--json").stdout.splitlines()
        workload.process.kill()
        workload.process.wait()
    finally:
        below.rmdir()
    rows = [json.loads(line) for line in lines]
    require_form("top", rows[1])
    top = f"/{limited.relative_to(memory_hierarchy().mount)}"
    assert [row["cgroup"] for row in rows] == [top, f"{top}/below"] * 3
    for row in rows:
        assert row["limit_bytes"] == LIMIT_BYTES
        assert row["limit_owner"] == top
        assert row["held_bytes"] + row["cache_bytes"] == row["usage_bytes"]
        assert row["usage_bytes"] >= 13 << 20
        assert sum(row["composition_bytes"].values()) == row["usage_bytes"]
        assert (row["kills"], row["charge_bytes_per_s"] is None) == (0, False)


@pytest.mark.beside
def test_table_for_a_pipe_is_plain_and_ends_after_n_intervals(limited: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, "-c", str(limited), "-n", "2", "-i", "0.2", "--sort", "name")
    assert ended.stdout.count("CGROUP") == 2
    assert ended.stdout.count(limited.name[-15:]) == 2
    assert "\x1b" not in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 100
    assert not (tmp_path / "traces").exists()


@pytest.mark.beside
def test_recorder_that_takes_more_than_its_bound_begins_with_the_least_history(
    limited: Path, tmp_path: Path
) -> None:
    """With thousands of cgroups it does, and nobody chose the bound."""
    small = "from tracer.top import live_view\nlive_view._MOST_MEMORY_BYTES = 20 << 20\n"
    arguments = ("-c", str(limited), "-n", "4", "--json")
    ended = subprocess.run(
        [sys.executable, "-c", small + script(*arguments)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN_S,
    )
    assert len(ended.stdout.splitlines()) >= 4
    assert "--max-memory" not in ended.stderr
