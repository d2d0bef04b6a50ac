from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import pyarrow as pa
import pytest
from click.shell_completion import ZshComplete
from click.testing import CliRunner

from tracer.cli import group, value_completion
from tracer.cli.verbs.printed import completion
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_names import HostNames

WriteTrace = Callable[..., Path]  # conftest.py


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_of_each_shell_has_valid_syntax(shell: str) -> None:
    result = CliRunner().invoke(completion.command, [shell])
    assert result.exit_code == 0, result.output
    assert "memcg-tracer" in result.stdout
    assert f"_MEMCG_TRACER_COMPLETE={shell}_complete" in result.stdout
    if interpreter := shutil.which(shell):
        subprocess.run([interpreter, "-n"], input=result.stdout, text=True, check=True)


def test_completion_for_another_shell_is_a_usage_error() -> None:
    result = CliRunner().invoke(completion.command, ["tcsh"])
    assert result.exit_code == click.UsageError.exit_code
    assert "tcsh" in result.stderr


MAY_BE_IMPORTED = frozenset({"click", "tracer", "rich"})
"""The packages that a verb may import beside the standard library; of rich, only the widths of characters."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "")


def completed(*words: str) -> dict[str, str]:
    """Return the completions of the last of `words`, with their help."""
    arguments, typed = list(words[:-1]), words[-1]
    os.environ["COMP_WORDS"] = shlex.join(["memcg-tracer", *words])
    completions = ZshComplete(group.group, {}, "memcg-tracer", "_MEMCG_TRACER_COMPLETE")
    return {item.value: item.help or "" for item in completions.get_completions(arguments, typed)}


@pytest.mark.parametrize("verb", group.VERBS)
def test_import_of_a_verb_loads_click_only(verb: str) -> None:
    script = (
        f"import sys; before = set(sys.modules); import tracer.cli.group, {group.module_of(verb)}\n"
        "new = set(sys.modules) - before; print(*new & {'rich.console'})\n"
        "print(*{name.partition('.')[0] for name in new} - sys.stdlib_module_names)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) <= MAY_BE_IMPORTED
    assert "rich.console" not in ended.stdout


def test_completing_a_value_of_a_trace_does_not_load_pandas(write_trace: WriteTrace) -> None:
    trace = write_trace()
    script = (
        "import sys; from click.shell_completion import ZshComplete; from tracer.cli.group import group\n"
        "found = ZshComplete(group, {}, 'memcg-tracer', 'X').get_completions(sys.argv[1:], '')\n"
        "print(len(found), 'pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "timeline", str(trace), "-c"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 False\n"


def test_completed_verbs_and_options_have_their_help() -> None:
    assert completed("e").keys() == {"explain", "evictions", "export"}
    assert completed("e")["explain"].startswith("Explain")
    assert completed("timeline", "--e").keys() == {"--every", "--end"}
    assert "page-cache" in completed("lab", "")
    assert completed("evictions", "x", "--by", "c").keys() == {"cgroup", "cause"}


@pytest.mark.parametrize("verb", ["timeline", "evictions", "export"])
def test_completed_cgroups_of_a_trace_include_containers(write_trace: WriteTrace, verb: str) -> None:
    trace = str(write_trace(container="web-1"))
    assert completed(verb, trace, "-c", "").keys() == {"web-1", "/memcg-tracer-77-page-cache", "/quiet"}
    assert completed(verb, trace, "-c", "/q").keys() == {"/quiet"}


def test_completed_kills_have_their_victim(write_trace: WriteTrace) -> None:
    trace = str(write_trace(comm="a\x1b[31mb"))
    assert completed("explain", trace, "--kill", "") == {"1": r"a\x1b[31mb (pid 41)"}
    assert completed("export", trace, "--kill", "2") == {}
    assert completed("export", trace, "--kill", "1").keys() == {"1"}


def test_completed_runs_belong_to_the_name(write_trace: WriteTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = str(write_trace(container="web-1"))
    assert completed("timeline", trace, "-c", "web-1", "--run", "").keys() == {"1"}
    assert completed("timeline", trace, "--run", "") == {}
    rows = {"container": ["web", "web", "web", None], "path": ["/d/4f", "/d/4f/init", "/d/4f", "/quiet"]}
    table = SimpleNamespace(table=lambda *_: pa.table(rows))
    monkeypatch.setattr(value_completion, "_trace", lambda _: table)
    assert completed("timeline", trace, "-c", "web", "--run", "").keys() == {"1", "2"}
    assert completed("timeline", trace, "--cgroup", "/quiet", "--run", "").keys() == {"1"}


@pytest.mark.parametrize("name", ["/$(reboot)", "/a b", "/`id`", "/a;b", "/a\\x2db", "/a\x1b[31m", "/a*"])
def test_name_that_a_shell_would_expand_is_not_offered(write_trace: WriteTrace, name: str) -> None:
    assert completed("timeline", str(write_trace(cgroup=name)), "-c", "").keys() == {"/quiet"}


@pytest.mark.parametrize("trace", ["nowhere", "/dev/null", ""])
def test_unreadable_trace_offers_nothing(trace: str) -> None:
    assert completed("timeline", trace, "-c", "") == completed("explain", trace, "--kill", "") == {}
    assert completed("timeline", "-c", "") == {}


def test_completed_cgroups_of_this_machine_include_containers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = "4f" * 32
    (tmp_path / "docker" / identity).mkdir(parents=True)
    (tmp_path / "system.slice").mkdir()
    monkeypatch.setattr(cgroupfs, "memory_hierarchy", lambda: cgroupfs.Hierarchy(1, tmp_path, "/"))
    monkeypatch.setattr(HostNames, "find", lambda _, refs: dict.fromkeys(refs, ContainerNames("web-1")))
    paths = {"/", "/docker", f"/docker/{identity}", "/system.slice"}
    assert completed("record", "-c", "").keys() == {"web-1", *paths}
    assert completed("record", "-c", "/s").keys() == {"/system.slice"}


@pytest.mark.parametrize("after_ms", range(0, 400, 50))
def test_completion_after_ctrl_c_prints_no_traceback(write_trace: WriteTrace, after_ms: int) -> None:
    program = (
        "from tracer import cli\n"
        "prepare = cli.standard_streams.prepare\n"
        "cli.standard_streams.prepare = lambda: (prepare(), print('begun', flush=True))\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", program, "explain", str(write_trace())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(after_ms / 1000)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate()
    assert complaint.strip() == ""
    assert process.returncode in (0, 130, -signal.SIGINT)


def test_ctrl_c_before_a_verb_runs_prints_nothing() -> None:
    """The imports of `main` have nothing to clean up."""
    program = (
        "import signal\n"
        "from tracer import cli\n"
        "cli.standard_streams.prepare = lambda: signal.raise_signal(signal.SIGINT)\n"
        "cli.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
