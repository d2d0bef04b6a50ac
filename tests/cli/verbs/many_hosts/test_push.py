"""`push`: what it prints, its exit status, and an end at any moment."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.schemas import require_form
from support.storing.object_store import object_store
from support.storing.spooled_trace import contents, write_spooled

from tracer.cli.verbs.many_hosts import push
from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing import attempts

HOSTILE = "\x1b[31mred\n"


def invoke(run: CliRunner, *arguments: Path | str) -> Result:
    return run.invoke(push.command, [str(argument) for argument in arguments])


def failure(result: Result) -> BaseException:
    assert result.exception is not None
    return result.exception


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for number, name in enumerate(("a", "b")):
        write_spooled(tmp_path / "spool" / name, start_ns=number)
    return tmp_path / "spool"


def test_urls_are_printed_and_a_summary_on_stderr(run: CliRunner, spool: Path, tmp_path: Path) -> None:
    write_spooled(spool / "young", ended=None, age_s=0)
    url = f"file://{tmp_path}/at"
    first = invoke(run, spool, url)
    assert (first.exit_code, first.stdout) == (0, f"{url}/a\n{url}/b\n")
    assert first.stderr == "memcg-tracer: copied 2 traces (15.8 KiB), 1 trace left for later\n"
    second = invoke(run, spool, url)
    assert (second.exit_code, second.stdout) == (0, "")
    assert second.stderr == "memcg-tracer: 2 traces there already, 1 trace left for later\n"
    assert contents(tmp_path / "at/a") == contents(spool / "a")


def test_json_has_a_line_for_each_trace(run: CliRunner, spool: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/at"
    invoke(run, spool / "a", url)
    result = invoke(run, spool, url, "--json", "--remove")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    require_form("push", lines[0])
    require_form("push", lines[1])
    assert [line["state"] for line in lines] == ["there", "pushed"]
    assert lines[1] == {
        "trace": str(spool / "b"),
        "state": "pushed",
        "url": f"{url}/b",
        "sent_bytes": sum(map(len, contents(tmp_path / "at/b").values())),
        "sent_files": 5,
        "is_removed": True,
        "why": None,
    }
    assert list(spool.iterdir()) == []


def test_failed_trace_gives_status_1_after_the_others(run: CliRunner, spool: Path, tmp_path: Path) -> None:
    (spool / "a/meta.json").write_text("{")
    (spool / "a").rename(spool / HOSTILE)
    result = invoke(run, spool, tmp_path / "at")
    assert "1 trace could not be copied" in str(failure(result))
    assert result.stdout == f"{tmp_path}/at/b\n"
    assert "\\x1b[31mred\\n" in result.stderr
    assert "\x1b" not in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_dry_run_lists_what_is_missing(run: CliRunner, spool: Path, tmp_path: Path) -> None:
    result = invoke(run, spool, tmp_path / "at", "-n")
    assert result.stdout == f"{tmp_path}/at/a\n{tmp_path}/at/b\n"
    assert not (tmp_path / "at").exists()


@pytest.mark.parametrize(
    "arguments",
    [["nowhere"], ["s3:/x"], ["{spool}"], ["{at}", "--every", "0.5s"], ["{at}", "-n", "--every", "9s"]],
)
def test_wrong_arguments_are_wrong_usage(
    run: CliRunner, spool: Path, tmp_path: Path, arguments: list[str]
) -> None:
    given = [argument.format(spool=spool, at=tmp_path / "at") for argument in arguments]
    result = invoke(run, spool, *given)
    error = failure(result)
    assert (error.exit_code if isinstance(error, TracerError) else result.exit_code) == 2
    assert isinstance(error, UsageError | SystemExit)


def test_directory_without_traces_is_named(run: CliRunner, tmp_path: Path) -> None:
    empty = tmp_path / HOSTILE
    empty.mkdir()
    result = invoke(run, empty, tmp_path / "at")
    assert result.exit_code == 0
    assert result.stderr == f"memcg-tracer: no traces below {tmp_path}/\\x1b[31mred\\n\n"


def test_directory_that_does_not_exist_is_an_error(run: CliRunner, tmp_path: Path) -> None:
    with object_store():
        assert "No such file or directory" in str(failure(invoke(run, tmp_path / "no", "memory://x")))


def test_password_of_the_url_is_never_printed(
    run: CliRunner, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr(attempts, "RETRY_AFTER_S", ())
    monkeypatch.setattr(attempts, "_silent", set())
    result = invoke(run, spool, "ftp://me:secret@127.0.0.1:1/x")
    assert "secret" not in f"{failure(result)}{result.output}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_goes_on_with_new_traces_until_a_signal(
    spool: Path, tmp_path: Path, number: signal.Signals
) -> None:
    url = f"file://{tmp_path}/at"
    argv = [sys.executable, "-m", "tracer", "push", "--every", "1s", str(spool), url]
    pushing = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    assert pushing.stdout is not None
    assert [pushing.stdout.readline(), pushing.stdout.readline()] == [f"{url}/a\n", f"{url}/b\n"]
    write_spooled(tmp_path / "c", start_ns=9).rename(spool / "c")
    assert pushing.stdout.readline() == f"{url}/c\n"
    pushing.send_signal(number)
    out, error = pushing.communicate(timeout=60)
    assert (pushing.returncode, out) == (0, "")
    assert error.splitlines()[-1].startswith("memcg-tracer: copied 3 traces")


def test_every_says_once_what_the_first_pass_found(spool: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/at"
    pushed = [sys.executable, "-m", "tracer", "push", str(spool), url]
    subprocess.run(pushed, capture_output=True, check=True)
    write_spooled(spool / "young", start_ns=5, ended=None, age_s=0)
    pushing = subprocess.Popen(
        [*pushed, "--every", "1s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert pushing.stdout is not None and pushing.stderr is not None
    first = "memcg-tracer: 2 traces there already, 1 trace left for later; looking for new ones each 1 s\n"
    assert pushing.stderr.readline() == first
    shutil.rmtree(spool / "young")
    write_spooled(tmp_path / "young", start_ns=5).rename(spool / "young")
    assert pushing.stdout.readline() == f"{url}/young\n"
    pushing.terminate()
    _, error = pushing.communicate(timeout=60)
    assert error.splitlines() == ["memcg-tracer: copied 1 trace (7.9 KiB), 2 traces there already"]


def test_every_goes_on_after_a_failure_and_reports_it_once(spool: Path, tmp_path: Path) -> None:
    (tmp_path / "at").write_text("a file, where the place should be")
    argv = [sys.executable, "-m", "tracer", "push", "--every", "1s", str(spool), str(tmp_path / "at")]
    pushing = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert pushing.stdout is not None and pushing.stderr is not None
    assert "warning: cannot use" in pushing.stderr.readline()
    (tmp_path / "at").unlink()
    assert [pushing.stdout.readline(), pushing.stdout.readline()] == [
        f"{tmp_path}/at/{one}\n" for one in "ab"
    ]
    pushing.terminate()
    _, error = pushing.communicate(timeout=60)
    assert pushing.returncode == 0
    assert "warning" not in error
    assert "copied 2 traces" in error.splitlines()[0]


def all_of(master: int) -> str:
    """Return what waits in a terminal whose other end is closed: one read returns a part of it."""
    parts = []
    with suppress(OSError), os.fdopen(master, "rb", buffering=0) as terminal:
        while part := terminal.read(1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def test_progress_on_a_terminal_is_removed_before_each_line(spool: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "tracer", "push", str(spool), f"{tmp_path}/at"]
    ended = subprocess.run(argv, stdout=slave, stderr=slave, check=False)
    os.close(slave)
    shown = all_of(master)
    assert ended.returncode == 0
    assert " sent" in shown
    last_of_each = [line.rpartition("\r\x1b[K")[2] for line in shown.split("\r\n")]
    assert last_of_each == [
        f"{tmp_path}/at/a",
        f"{tmp_path}/at/b",
        "memcg-tracer: copied 2 traces (15.8 KiB)",
        "",
    ]
