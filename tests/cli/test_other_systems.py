"""The command line on macOS: it reads traces and logs as on Linux, and a verb that needs Linux says so."""

from __future__ import annotations

import filecmp
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from click.testing import CliRunner
from support.as_darwin import LINUX_ONLY
from support.recorded import TRACES

from tracer.cli.group import VERBS, group

TESTS: Final = Path(__file__).parents[1]
LOG: Final = TESTS / "cli/verbs/pasted_logs/written-cri-kmsg-pod-kill-alone.log"
READING: Final = (
    f"explain {TRACES}/page-cache",
    f"explain {TRACES}/page-cache --json",
    f"explain {TRACES}/group-kill --markdown",
    f"explain --kmsg {LOG}",
    f"timeline {TRACES}/page-cache",
    f"evictions {TRACES}/page-cache",
    f"whatif {TRACES}/thrash --limit 20M 120M",
    f"report {TRACES}/page-cache -o page.html",
    f"export {TRACES}/page-cache --to parquet -o tables",
    f"export {TRACES}/page-cache --to perfetto -o page-cache.pftrace",
    f"export {TRACES}/page-cache --to dataset -o dataset",
    f"info {TRACES}/page-cache",
    f"push {TRACES}/page-cache {{here}}/pushed",
    f"fleet {TRACES}/page-cache {TRACES}/thrash --workers {{workers}}",
    "lab --list",
    "dashboard",
    "alerts",
    "completion bash",
)
TRACING: Final = {
    "record": "record -o trace -- true",
    "top": "top -n 1",
    "watch": "watch --out kills",
    "serve": "serve --listen 127.0.0.1:0",
    "contents": "contents",
    "lab": "lab page-cache -o trace",
    "fit": "fit -- true",
    "doctor": "doctor --quiet",
}
NO_LOG: Final = "explain a-name-of-nothing"


pytestmark = pytest.mark.timeout(600)
"""The command lines of macOS run one after the other, before the first test."""


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


def argv(line: str, here: Path, workers: int = 1) -> list[str]:
    """Return the words of a command line that runs in a folder."""
    return shlex.split(line.format(here=here, workers=workers))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of the command lines on macOS."""
    return tmp_path_factory.mktemp("darwin")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """Run all command lines as on macOS."""
    lines = [*READING, *TRACING.values(), NO_LOG]
    document = folder.with_name(f"{folder.name}.json")
    document.write_text(json.dumps([argv(line, folder, workers=2) for line in lines]))
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "support.as_darwin", str(document)]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    found = json.loads(document.read_text())
    return {line: Outcome(*outcome) for line, outcome in zip(lines, found, strict=True)}


def test_every_verb_has_a_command_line() -> None:
    verbs = {line.split()[0] for line in READING}
    assert verbs | set(TRACING) == set(VERBS) - {"unit"}  # it names programs of this machine


@pytest.mark.parametrize("line", READING, ids=lambda line: line.replace(str(TRACES), "traces")[:40])
def test_reading_on_macos_prints_and_writes_what_linux_does(
    line: str, outcomes: dict[str, Outcome], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = CliRunner().invoke(group, argv(line, tmp_path), prog_name="memcg-tracer", catch_exceptions=False)
    there = outcomes[line]
    assert there.status == 0
    assert [text.replace(str(folder), str(tmp_path)) for text in there[1:]] == [here.stdout, here.stderr]
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert files or "-o" not in line
    assert filecmp.cmpfiles(tmp_path, folder, files, shallow=False)[1:] == ([], [])


@pytest.mark.parametrize("verb", TRACING)
def test_verb_that_traces_says_in_a_line_that_it_needs_linux(
    verb: str, outcomes: dict[str, Outcome], folder: Path
) -> None:
    status, stdout, stderr = outcomes[TRACING[verb]]
    assert (status, stdout) == (1, "")
    assert stderr.startswith("memcg-tracer: error: ")
    assert "needs Linux" in stderr
    assert stderr.count("\n") == 1
    assert not (folder / "trace").exists()
    assert not (folder / "kills").exists()


def test_kernel_log_of_macos_is_not_read(outcomes: dict[str, Outcome]) -> None:
    status, _, stderr = outcomes[NO_LOG]
    assert status == 1
    assert stderr.endswith("no kernel log can be read here: give one of Linux to --kmsg\n")


def test_names_that_only_linux_has_are_those_of_python() -> None:
    """A name that Python does not have would be removed from nothing."""
    missing = {
        name
        for module, names in LINUX_ONLY.items()
        for name in names.split()
        if not hasattr(importlib.import_module(module), name)
    }
    assert missing <= {"setns", "unshare"}, "since Python 3.12"
