"""`fleet`: its output in each form, its errors, and its end at Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.recorded import TRACES, copy_examples
from support.schemas import require_form
from support.slowdown import SLOWDOWN
from support.storing.summarized import summaries_kept

from tracer.cli import standard_streams
from tracer.cli.group import group
from tracer.errors import TracerError, UsageError

TOP = Path(__file__).parents[4]
PAGE = TOP / "docs/examples/fleet.md"
NAMES = ("anon", "page-cache", "sharedbuffers")
WORDS = (sys.executable, "-m", "tracer", "fleet")
CONTRACT = {
    "hosts": {"host", "traces", "kills", "lost_records"},
    "kills": {"cause", "workload", "host", "count", "first", "last"},
    "workloads": {
        *("workload", "runs", "kills", "limit_bytes", "peak_unreclaimable_bytes"),
        *("suggested_limit_bytes", "from_runs"),
    },
}


@pytest.fixture(scope="module", autouse=True)
def kept() -> Iterator[None]:
    with summaries_kept():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_examples(tmp_path / "traces", NAMES)


def printed(*arguments: str | Path) -> str:
    ended = CliRunner().invoke(
        group, ["fleet", "--workers", "1", *map(str, arguments)], catch_exceptions=False
    )
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def document(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed(*arguments, "--json"))
    require_form("fleet", found)
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Return the document of the examples."""
    return document(*(TRACES / name for name in NAMES))


def refused(*arguments: str | Path) -> Exception:
    ended = CliRunner().invoke(group, ["fleet", *map(str, arguments)])
    assert isinstance(ended.exception, Exception)
    return ended.exception


def test_json_has_what_the_contract_says(expected: dict[str, Any]) -> None:
    found = expected
    assert (found["traces"], found["broken"]) == (3, [])
    for name, keys in CONTRACT.items():
        assert found[name]
        assert all(keys <= set(one) for one in found[name])
    assert set(found["workloads"][0]["peak_unreclaimable_bytes"]) == {"p50", "p90", "max"}
    assert found["evictors"]
    assert sum(one["count"] for one in found["kills"]) == sum(one["kills"] for one in found["hosts"])


def test_kills_are_those_of_the_traces(expected: dict[str, Any]) -> None:
    kills = {(one["cause"], one["workload"]): one["count"] for one in expected["kills"]}
    assert kills == {
        ("anon_growth", "/memcg-tracer-*-lab-anon"): 1,
        ("anon_growth", "/memcg-tracer-*-lab-page-cache"): 1,
        ("shmem", "/memcg-tracer-*-lab-sharedbuffers"): 3,
    }


def test_part_of_time_has_its_kills_alone(folder: Path, tmp_path: Path) -> None:
    found = document(folder, "--since", "2026-11-25T11:00Z", "--until", "2026-11-26")
    assert (found["traces"], found["since"][:16], found["until"][:10]) == (
        1,
        "2026-11-25T11:00",
        "2026-11-26",
    )
    (kill,) = found["kills"]
    assert kill["workload"] == "/memcg-tracer-*-lab-page-cache"
    assert "asked for     from 2026-11-26 00:00 UTC\n" in printed(folder, "--since", "2026-11-26")
    assert "No trace has anything of that time." in printed(folder, "--until", "20000d")
    assert printed(folder, "--until", "20000d", "--report", tmp_path / "page.html")


def test_times_that_mean_nothing_are_errors_of_use(folder: Path) -> None:
    error = refused(folder, "--since", "2026-11-26", "--until", "2026-11-25")
    assert isinstance(error, UsageError)
    assert str(error) == "--since must be before --until"
    assert "before" in str(refused(folder, "--since", "7d", "--until", "168h"))
    ended = CliRunner().invoke(group, ["fleet", str(folder), "--until", "tomorrow"])
    assert ended.exit_code == 2
    assert "Invalid value for '--until': 'tomorrow' is not a time: give one like 7d" in ended.output


def test_copy_of_a_trace_changes_nothing(folder: Path, expected: dict[str, Any]) -> None:
    shutil.copytree(TRACES / "anon", folder / "hosts/copy/anon")
    assert document(folder) == expected
    assert document(folder, folder / "anon") == expected


def test_broken_trace_is_listed_and_left_out(folder: Path, expected: dict[str, Any]) -> None:
    (folder / "broken").mkdir()
    (folder / "broken/meta.json").write_text("{")
    found = document(folder)
    (broken,) = found.pop("broken")
    assert broken["path"] == str(folder / "broken")
    assert broken["why"]
    assert found == {name: value for name, value in expected.items() if name != "broken"}
    assert f"- {folder}/broken:"[:30] in printed(folder)


def test_interrupted_trace_counts_and_its_losses_are_not_known(folder: Path) -> None:
    meta = json.loads((folder / "anon/meta.json").read_text())
    (folder / "anon/meta.json").write_text(
        json.dumps(meta | dict.fromkeys(("ended", "end_reason", "rows", "lost")))
    )
    found = document(folder)
    assert (found["traces"], sum(one["uncounted_traces"] for one in found["hosts"])) == (3, 1)


def test_folder_without_a_trace_is_an_error_of_one_line(tmp_path: Path) -> None:
    assert str(refused(tmp_path)) == f"{tmp_path}: there is no trace in it, and no dataset with one"
    assert "does not exist" in str(refused(tmp_path / "nowhere"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/meta.json").write_text("{")
    error = refused(tmp_path)
    assert isinstance(error, TracerError)
    assert str(error).startswith(f"no trace can be read: {tmp_path}/broken: ")


def test_forms_and_places_of_work_exclude_each_other(folder: Path) -> None:
    assert "choose one" in str(refused(folder, "--json", "--report", "x.html"))
    assert "its own" in str(refused(folder, "--scheduler", "tcp://x", "--workers", "2"))
    assert isinstance(refused(folder, "--report", folder), UsageError)


def test_report_is_a_page_that_only_its_owner_can_read(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    assert printed(folder, "--report", page) == f"{page}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "<h2>Limits</h2>" in page.read_text()
    assert f"{page} exists" in str(refused(folder, "--report", page))
    assert printed(folder, "--report", page, "-f") == f"{page}\n"


@pytest.mark.parametrize(("package", "more"), [("dask", []), ("distributed", ["--scheduler", "tcp://x:1"])])
def test_package_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, more: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert str(refused(folder, *more)) == f"fleet needs {package}: pip install 'memcg-tracer[fleet]'"


def test_distributed_is_not_imported_for_this_machine(folder: Path) -> None:
    code = "import sys; from tracer.fleet.reduction.fleet_run import fleet; fleet(sys.argv[1:], workers=1)"
    code += "; assert 'distributed' not in sys.modules"
    command = [sys.executable, "-c", code, str(folder / NAMES[0])]
    assert subprocess.run(command, cwd=TOP, check=False).returncode == 0


class OnTerminal:
    """`fleet` in a session of its own; stderr is a terminal, stdout a pipe."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, end = pty.openpty()
        self.process = subprocess.Popen(
            [*WORDS, *arguments],
            cwd=TOP,
            env=os.environ | {standard_streams.SWITCH: "0", "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)
        self.seen = b""

    def read_until(self, words: bytes | None) -> None:
        """Read what the terminal shows until it has these words, or to the end."""
        while words is None or words not in self.seen:
            ready, _, _ = select.select([self._terminal], [], [], 60 * SLOWDOWN)
            assert ready, self.seen
            try:
                self.seen += os.read(self._terminal, 4096)
            except OSError:  # every process has closed it
                assert words is None, self.seen
                return

    def ended(self) -> tuple[int, str]:
        """Return the status and standard output, once all processes that have the terminal are gone."""
        assert self.process.stdout is not None
        out = self.process.stdout.read().decode()
        self.read_until(None)
        os.close(self._terminal)
        return self.process.wait(60 * SLOWDOWN), out


def test_progress_is_on_the_terminal_and_not_in_the_output(folder: Path, expected: dict[str, Any]) -> None:
    run = OnTerminal(str(folder), "--workers", "2", "--json")
    status, out = run.ended()
    assert (status, json.loads(out)) == (0, expected)
    assert b"looking for traces, " in run.seen


def test_terminal_shows_which_scheduler_is_waited_for(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        run = OnTerminal(str(folder), "--scheduler", address)
        run.read_until(f"waiting for {address}".encode())
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.ended()[0] in (130, -signal.SIGINT)
    assert b"Traceback" not in run.seen


def test_interrupt_ends_all_processes_without_a_traceback(tmp_path: Path) -> None:
    run = OnTerminal(str(copy_examples(tmp_path / "traces")), "--workers", "2")
    run.read_until(b" read, ")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ended() == (130, "")
    assert b"Traceback" not in run.seen
    deadline = time.monotonic() + 60 * SLOWDOWN
    while left := [name for name, process_group in processes() if process_group == run.process.pid]:
        assert time.monotonic() < deadline, left  # one that has closed its files still takes a moment to end
        time.sleep(0.01)


def processes() -> list[tuple[str, int]]:
    """Return (name, process group) of all processes that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(") ")
            state, _, process_group, *_ = rest.split()
            if state != "Z":
                found.append((name.partition("(")[2], int(process_group)))
    return found


def test_answer_of_all_examples_is_that_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_examples(tmp_path / "traces")
    monkeypatch.chdir(tmp_path)
    shown = PAGE.read_text().partition("$ memcg-tracer fleet traces\n")[2].partition("```\n")[0]
    assert printed("traces") == shown
