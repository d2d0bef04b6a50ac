"""The trace that a path, a name or nothing stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tracer.analysis.explain import postmortem
from tracer.cli import trace_argument
from tracer.cli.verbs import evictions, explain, info, report, timeline, whatif
from tracer.errors import TracerError
from tracer.kernel.kmsg import log_files, this_machine

LOG = Path(__file__).parents[1] / "kernel/kmsg/corpus/written-5.10-debian11-v2-rfc3339.log"
VERBS = (explain, timeline, evictions, info)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a directory of `watch`, of this test alone; the kernel log has no kill."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trace_argument, "FOLDERS", (tmp_path / "watch", Path("traces")))
    monkeypatch.setattr(this_machine, "read", lambda: None)
    return tmp_path


def ended(path: Path, when: str | None) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"ended": when}))


def stderr_of(run: CliRunner, verb: Any, *arguments: str) -> str:
    result = run.invoke(verb.command, list(arguments))
    assert result.exception is None, result.exception
    return result.stderr


def test_nothing_is_the_newest_kill_of_the_directory_of_watch(run: CliRunner, write_trace: Any) -> None:
    write_trace("traces/mine", container="web")
    write_trace("watch/20251125T000000Z-kill-web", container="web")
    for verb in VERBS:
        assert "memcg-tracer: the newest kill: " in (shown := stderr_of(run, verb)), verb
        assert shown.endswith("watch/20251125T000000Z-kill-web\n")


def test_nothing_is_the_newest_kill_of_traces_without_watch(run: CliRunner, write_trace: Any) -> None:
    write_trace("traces/held", killed=False)
    write_trace("traces/killed")
    for verb in VERBS:
        assert stderr_of(run, verb) == "memcg-tracer: the newest kill: traces/killed\n"
    stderr_of(run, report, "-o", "page.html")


def test_newest_is_by_the_kill_and_not_by_the_end(run: CliRunner, write_trace: Any) -> None:
    """The trace with the earlier kill ended later; one that has no end may have the newest kill."""
    write_trace("traces/a-early-kill", step_ns=10_000_000)
    write_trace("traces/b-late-kill", step_ns=20_000_000)
    ended(Path("traces/a-early-kill"), "2026-01-01T00:00:00+00:00")
    assert "traces/b-late-kill" in stderr_of(run, explain)
    ended(Path("traces/b-late-kill"), None)
    assert "traces/b-late-kill" in stderr_of(run, explain)
    ended(Path("traces/b-late-kill"), "2025-11-24T16:00:10+00:00")
    assert "traces/b-late-kill" in stderr_of(run, explain)


@pytest.mark.parametrize("killed", [True, False])
def test_name_of_a_trace_finds_it_below_the_kills_of_that_name(
    run: CliRunner, write_trace: Any, killed: bool
) -> None:
    write_trace("traces/demo", container="web", killed=killed)
    for verb in VERBS:
        assert stderr_of(run, verb, "demo") == "memcg-tracer: the trace traces/demo\n"
    write_trace("traces/other", container="demo")
    for verb in VERBS:
        assert stderr_of(run, verb, "demo") == "memcg-tracer: the newest kill of 'demo': traces/other\n"


@pytest.mark.parametrize("verb", [*VERBS, report])
def test_trace_of_root_is_read_with_sudo_or_by_a_new_owner(
    run: CliRunner, write_trace: Any, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    """Most traces are those of root, who alone can read them. The message says so, not that the argument is
    wrong. What `os.access` answers to another user is simulated, because the tests may run as root."""
    write_trace("traces/of-root")
    monkeypatch.setattr("os.access", lambda path, _mode, **_rest: "of-root" not in str(path))
    for name in ("traces/of-root", "of-root"):
        refused = run.invoke(verb.command, [name, *(["-o", "page.html"] if verb is report else [])])
        assert isinstance(refused.exception, TracerError)
        assert str(refused.exception) == (
            "traces/of-root cannot be read by this user: use sudo, or become its owner "
            "(sudo chown -R $USER traces/of-root)"
        )


def test_name_chooses_the_trace_and_its_cgroups(run: CliRunner, write_trace: Any) -> None:
    write_trace("traces/web", container="web")
    write_trace("traces/cart", container="cart", step_ns=20_000_000)
    for verb in VERBS:
        assert stderr_of(run, verb, "web") == "memcg-tracer: the newest kill of 'web': traces/web\n"
    assert "traces/cart" in stderr_of(run, explain, "cart")
    stderr_of(run, report, "web", "-o", "page.html")


def test_kill_that_top_recorded_is_found_in_its_folder(run: CliRunner, write_trace: Any) -> None:
    write_trace("traces/web", container="web")
    Path("traces/top-20251125T000000Z-7").mkdir()
    write_trace("traces/top-20251125T000000Z-7/kill-web", container="web", step_ns=20_000_000)
    Path("traces/fit").mkdir()
    write_trace("traces/fit/1", container="web", step_ns=30_000_000)  # its kills were wanted
    assert stderr_of(run, explain, "web").endswith(": traces/top-20251125T000000Z-7/kill-web\n")


def test_folder_in_a_folder_of_top_is_not_searched(run: CliRunner, write_trace: Any) -> None:
    Path("traces/top-1/top-2").mkdir(parents=True)
    write_trace("traces/top-1/kill-web", container="web")
    write_trace("traces/top-1/top-2/kill-web", container="web", step_ns=20_000_000)
    assert stderr_of(run, explain, "web").endswith(": traces/top-1/kill-web\n")


def test_whatif_of_a_name_is_about_the_limit_of_the_kill(run: CliRunner, write_trace: Any) -> None:
    write_trace("traces/web", cgroup="/pods/web", quiet="/pods")
    result = run.invoke(whatif.command, ["pods", "--json"])
    assert json.loads(result.stdout)["cgroup"] == "/pods/web"


def test_path_of_a_trace_is_the_trace(run: CliRunner, write_trace: Any) -> None:
    write_trace("web", container="cart")
    write_trace("traces/web", container="web")
    assert stderr_of(run, explain, "web") == ""


def test_damaged_trace_and_hidden_or_linked_ones_are_passed_over(
    run: CliRunner, write_trace: Any, here: Path
) -> None:
    write_trace("traces/killed")
    write_trace("traces/.unfinished-x", step_ns=20_000_000)
    write_trace("elsewhere", step_ns=20_000_000)
    (here / "traces/link").symlink_to(here / "elsewhere")
    (here / "traces/damaged").mkdir()
    (here / "traces/damaged/meta.json").write_text('{"format": "memcg-tracer trace"')
    assert stderr_of(run, explain) == "memcg-tracer: the newest kill: traces/killed\n"


def test_kernel_log_is_the_last_place(
    run: CliRunner, write_trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_machine, "read", lambda: ("journalctl -k", log_files.read(str(LOG))))
    write_trace("traces/held", container="web", killed=False)
    for arguments in ([], ["web"]):
        result = run.invoke(explain.command, [*arguments, "--json"])
        if arguments:  # one line, the error
            assert "; journalctl -k: no kill in this log is of 'web'" in str(result.exception)
            assert result.stderr == ""
        else:
            assert json.loads(result.stdout)["kmsg"] == "journalctl -k"
            assert result.stderr.endswith("; journalctl -k has the kills\n")


def test_kernel_log_without_a_kill_and_an_unreadable_one_are_told_apart(
    run: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no kernel log can be read here" in str(run.invoke(explain.command, []).exception)
    monkeypatch.setattr(this_machine, "read", lambda: ("dmesg", log_files.Log([], [])))
    assert "the kernel log (dmesg) shows no kill either" in str(run.invoke(explain.command, []).exception)


@pytest.mark.parametrize("verb", VERBS)
def test_no_kill_anywhere_is_an_error_that_names_the_places(run: CliRunner, verb: Any) -> None:
    for arguments, text in (([], "no trace with a kill in"), (["web"], "there is no trace 'web', nor one")):
        raised = run.invoke(verb.command, arguments).exception
        assert isinstance(raised, TracerError) and raised.exit_code == 1
        assert text in str(raised) and "traces/" in str(raised) and "kernel log" in str(raised)


def test_misspelt_name_is_answered_with_the_nearest_and_without_reading_a_kill(
    run: CliRunner, write_trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_trace: Any) -> None:
        raise AssertionError("kills were read")

    write_trace("traces/20251125T000000Z-kill", container="shopcart")
    monkeypatch.setattr(postmortem.PostMortems, "__init__", read)
    for verb in VERBS:
        assert "; near it: shopcart; " in str(run.invoke(verb.command, ["shopcrat"]).exception)
        assert "near it" not in str(run.invoke(verb.command, ["zzz"]).exception)
    nearest = str(run.invoke(info.command, ["2025112T000000Z"]).exception)
    assert "; near it: 20251125T000000Z-kill; " in nearest


def test_name_of_a_file_that_is_no_trace_is_an_error_of_that_file(run: CliRunner) -> None:
    Path("notes").mkdir()
    raised = run.invoke(explain.command, ["notes"]).exception
    assert isinstance(raised, TracerError) and "notes" in str(raised) and "meta.json" in str(raised)


@pytest.mark.parametrize("verb", VERBS)
def test_path_of_nothing_is_an_error_before_any_search(
    run: CliRunner, here: Path, verb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(_folder: Path, _name: str | None) -> None:
        raise AssertionError("traces were searched for a kill")

    (here / "traces").mkdir()
    monkeypatch.setattr(trace_argument, "_with_newest_kill", searched)
    for path in ("traces/none", "traces/../traces/none", str(here / "none")):
        error = run.invoke(verb.command, [path]).exception
        assert isinstance(error, TracerError)
        assert "no such file or directory" in str(error) and "\n" not in str(error)


def test_misspelt_path_names_the_trace_beside_it(run: CliRunner, write_trace: Any) -> None:
    write_trace("kept/shopcart", container="web")
    write_trace("kept/top-20251125T000000Z/zzzz", container="web")
    assert str(run.invoke(info.command, ["kept/shopcrat"]).exception).endswith("; near it: kept/shopcart")
    assert str(run.invoke(info.command, ["kept/zzz"]).exception).endswith("no such file or directory")


@pytest.mark.parametrize("name", ["/web", "shop/web", "/docker/web", "/sys/fs/cgroup/docker/web"])
def test_path_of_a_cgroup_or_a_pod_is_searched_for(run: CliRunner, name: str) -> None:
    error = run.invoke(info.command, [name]).exception
    assert "nor one with a kill of that name" in str(error)
