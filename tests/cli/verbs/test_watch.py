"""The verb `watch`: its options, its refusals, and what it prints, without a recorder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.as_nobody import as_nobody

from tracer.cli.verbs import watch as verb
from tracer.errors import UsageError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.watch import watching
from tracer.watch.finishing import Finished
from tracer.watch.pod_account import PodAccount, pod_account
from tracer.watch.watching import WatchOptions

MIB = 1 << 20
NOON_NS = 1_795_694_400_000_000_000  # 2026-11-26T12:00:00Z
HOSTILE = "web\x1b[2J\n\u202eevil"
STORY = Finished(Path("/traces/one"), "kill", NOON_NS, "/docker/4f", 2, "web", "It grew.", "anon_growth")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[WatchOptions]:
    """Return the requests that would be watched."""
    found: list[WatchOptions] = []
    monkeypatch.setattr(watching, "watch", lambda options, _: found.append(options))
    monkeypatch.setattr("tracer.capture.session.save_memory", lambda: None)
    monkeypatch.setattr("tracer.kernel.process.children.keep_pages_small", lambda: None)
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(verb.command, arguments)


def refused(*arguments: str, launch: tuple[str, ...] = ("-m", "tracer")) -> subprocess.CompletedProcess[str]:
    """Return how a `watch` ended that printed one line on stderr."""
    ended = subprocess.run(
        [sys.executable, *launch, "watch", *arguments],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert ended.stdout == ""
    assert ended.stderr.startswith("memcg-tracer: error: ")
    assert ended.stderr.count("\n") == 1
    return ended


def test_defaults_keep_five_minutes_of_every_cgroup(asked: list[WatchOptions]) -> None:
    assert run().exit_code == 0
    assert asked == [
        WatchOptions(
            Path("/var/lib/memcg-tracer"),
            keep_s=300.0,
            most_memory_bytes=100 * MIB,
            keep_traces=100,
            most_disk_bytes=1024 * MIB,
            stacks_bytes=MIB,
        )
    ]


def test_events_need_a_pod_and_take_its_account(
    asked: list[WatchOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    outside = run("--events")
    assert isinstance(outside.exception, UsageError)
    assert str(outside.exception).startswith("--events is for a pod of Kubernetes")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(verb, "pod_account", partial(pod_account, folder=tmp_path))
    assert run("--events").exit_code == 0
    assert [one.pod_account for one in asked] == [PodAccount("10.96.0.1", 443, tmp_path)]


def test_options_are_passed_on(asked: list[WatchOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCG_TRACER_RING_PAGES", "charge=8")
    ended = run(
        *("-c", "/a", "-c", "web", "--out", "here", "--keep", "90s", "--max-memory", "64M", "--on", "kill"),
        *("--on", "soon", "--keep-traces", "3", "--max-disk", "2G", "--ready-file", "ready"),
        *("--exec", "page-me 'a b' --now", "--stacks", "2M"),
    )
    assert ended.exit_code == 0, ended.output
    assert asked == [
        WatchOptions(
            Path("here"),
            cgroups=("/a", "web"),
            keep_s=90.0,
            most_memory_bytes=64 * MIB,
            on=frozenset({"soon"}),
            keep_traces=3,
            most_disk_bytes=2048 * MIB,
            command=("page-me", "a b", "--now"),
            ready_file=Path("ready"),
            ring_pages={"charge": 8},
            stacks_bytes=2 * MIB,
        )
    ]


def test_url_of_out_is_for_copies_of_the_traces_in_the_default_directory(
    asked: list[WatchOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert run("--out", "memory://oom/traces").exit_code == 0
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/state:/srv/other")
    assert run("--out", "memory://oom/traces").exit_code == 0
    assert [(options.directory, options.url) for options in asked] == [
        (Path("/var/lib/memcg-tracer"), "memory://oom/traces"),
        (Path("/srv/state"), "memory://oom/traces"),
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--out", "nope://x"], "Protocol not known: nope"),
        (["--keep", "5s"], "from 10s to 24h"),
        (["--keep", "2d"], "from 10s to 24h"),
        (["--keep", "soon"], "'soon' is not a time"),
        (["--max-memory", "much"], "'much' is not a size"),
        (["--max-disk", "-1"], "'-1' is not a size"),
        (["--keep-traces", "0"], "--keep-traces"),
        (["--on", "friday"], "'friday'"),
        (["--exec", ""], "--exec is empty"),
        (["--exec", "a 'b"], "close the quotation"),
        (["/a/cgroup"], "/a/cgroup"),
    ],
)
def test_invalid_options_are_usage_errors(arguments: list[str], word: str) -> None:
    ended = refused(*arguments)
    assert ended.returncode == 2
    assert word in ended.stderr


def test_watching_without_root_is_refused() -> None:
    """The directory may be that of a service, which only root can read."""
    with tempfile.TemporaryDirectory() as spool:  # not tmp_path: others do not even see what is there
        launch = as_nobody("tracer.cli.verbs.watch", "tracer.watch.watching")
        ended = refused("--out", spool, launch=launch)
    assert ended.returncode == 1
    assert "needs root" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="is refused before, without root")
def test_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        assert refused("--out", str(tmp_path / name)).returncode == 1
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert "chmod go-w" in refused("--out", str(open_to_all)).stderr
    (tmp_path / "ready").write_text("x")
    options = ["--out", str(tmp_path / "traces"), "--ready-file", str(tmp_path / "ready")]
    assert refused(*options).returncode != 0
    assert not (tmp_path / "traces").exists()


# What it prints


def printed(capsys: pytest.CaptureFixture[str], story: Finished, *, as_json: bool = False) -> str:
    verb._Lines(WatchOptions(Path("/traces")), as_json=as_json).finished(story)
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    return out.rstrip("\n")


def test_line_has_the_container_the_verdict_and_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, replace(STORY, kills=1)) == "web: It grew. /traces/one"


def test_line_of_several_kills_says_which_one_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """The trace is named after the first kill, maybe of another cgroup."""
    story = replace(STORY, kills=1_203, cause="anon_growth")
    assert printed(capsys, story) == "web: the last of 1,203 kills: It grew. /traces/one"
    assert printed(capsys, replace(story, kills=1)) == "web: It grew. /traces/one"


def test_line_of_a_trace_that_is_not_explained_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    error = "not completed: its process was ended by signal 9"
    story = Finished(Path("/traces/one"), "request", NOON_NS, None, None, error=error)
    assert printed(capsys, story) == f"{error} /traces/one"
    assert printed(capsys, Finished(Path("/traces/one"), "request", NOON_NS, "/a", 0)) == (
        "/a: request /traces/one"
    )


def test_json_line_has_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, STORY, as_json=True)) == {
        "trace": "/traces/one",
        "reason": "kill",
        "time": "2026-11-26T12:00:00.000000+00:00",
        "cgroup": "/docker/4f",
        "kills": 2,
        "container": "web",
        "cause": "anon_growth",
        "summary": "It grew.",
        "error": None,
        "pod": STORY.pod,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_hostile_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    story = Finished(Path(f"/traces/{HOSTILE}"), "kill", NOON_NS, f"/{HOSTILE}", 1, HOSTILE, HOSTILE, HOSTILE)
    line = printed(capsys, story, as_json=as_json)
    assert line.isprintable()
    assert line.isascii()
    if as_json:
        assert json.loads(line)["container"] == HOSTILE


def test_hostile_names_do_not_reach_the_terminal_by_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    lines = verb._Lines(WatchOptions(Path(f"/{HOSTILE}")), as_json=False)
    time_ns = 1_764_000_000_000_000_000
    lines.killed({"time": time_ns, "comm": HOSTILE, "pid": 5, "limit_bytes": None}, HOSTILE)
    lines.killed({"time": time_ns, "comm": "worker", "pid": 5, "limit_bytes": 48 * MIB}, "web")
    lines.alarmed("it is at its limit", f"/{HOSTILE}")
    lines.alarmed("it is at its limit", None)
    lines.warn(HOSTILE)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 5
    assert all(line.isprintable() and line.startswith("memcg-tracer: ") for line in shown)
    assert shown[1] == ("memcg-tracer: OOM kill in web at 16:00:00 UTC: worker (pid 5), at a limit of 48 MiB")
    assert shown[3] == "memcg-tracer: a cgroup that is gone: it is at its limit"


PRINTING = """
import sys
from pathlib import Path
from tracer.cli import standard_streams
from tracer.cli.verbs import watch
from tracer.watch.finishing import Finished
from tracer.watch.watching import WatchOptions
standard_streams.prepare()
lines = watch._Lines(WatchOptions(Path("/traces")), as_json=False)
for number in range(3):
    lines.finished(Finished(Path("/traces/one"), "kill", 0, "/a", 1, "web\\u4e2d", "It grew."))
watch._let_go_of_output()
"""


def test_output_that_cannot_be_written_does_not_end_it() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTING], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 0
    assert ended.stderr == (
        "memcg-tracer: warning: cannot write to standard output: No space left on device: traces are "
        "written, but their lines are not\n"
    )


def test_output_of_a_poor_encoding_has_escapes() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PRINTING],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.splitlines() == [b"web\\u4e2d: It grew. /traces/one"] * 3


def test_pressure_is_refused_where_cgroups_have_none(
    asked: list[WatchOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_on(version: int) -> Any:
        monkeypatch.setattr(cgroupfs, "memory_hierarchy", lambda: Hierarchy(version, tmp_path, "/"))
        monkeypatch.setattr(verb, "OF_MACHINE", tmp_path / "memory")
        return run("--psi", "20")

    ended = run_on(1)
    assert (ended.exit_code, asked) == (2, [])
    assert "--psi needs cgroup v2: v1 has no pressure of a cgroup" in ended.output
    ended = run_on(2)
    assert (ended.exit_code, asked) == (2, [])
    assert "boot with psi=1" in ended.output
    (tmp_path / "memory").write_text("some avg10=0.00\n")
    assert run_on(2).exit_code == 0
    assert [options.psi_percent for options in asked] == [20]
    assert [options.on for options in asked] == [frozenset()]


@pytest.mark.parametrize("percent", ["0", "100.1", "-1", "x"])
def test_percent_of_pressure_is_more_than_none_and_at_most_all(
    percent: str, asked: list[WatchOptions]
) -> None:
    assert run("--psi", percent).exit_code == 2
    assert asked == []
