"""Every verb in a working directory of somebody else, with a module for each name that Python looks for.

None of them may run: root would run what nobody wrote.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from support.command_lines import ROOTLESS
from support.waiting import wait_for
from synthetic.begun_search import NEXT_RUN, begin_search

from tracer.cli.group import VERBS
from tracer.kernel.process.children import start_module

WriteTrace = Callable[..., Path]
ArgvOf = Callable[[str, str], list[str]]
NOBODY = 65534
PROGRAM = Path(sys.executable).with_name("memcg-tracer")
PLANTED = "with open({ran!r}, 'a') as file:\n    file.write(__name__ + '\\n')\nraise SystemExit(99)\n"
NAMES = {
    *(name for name in sys.stdlib_module_names if name not in sys.builtin_module_names),
    *packages_distributions(),
    *("bcc", "sitecustomize", "usercustomize"),
}
TRACING = {
    "record": "-o {out} --limit 64M -- true",
    "top": "-n 2 -i 0.2 --json",
    "contents": "--by cgroup",
    "lab": "livelock -o {out}",
    "fit": f"-o {{out}} --runs {NEXT_RUN} -- true",
}
SERVING = {
    "watch": "--out {out} --serve 127.0.0.1:0 --ready-file {ready}",
    "serve": "--listen 127.0.0.1:0 --ready-file {ready}",
}


class Folder:
    """A directory with the planted modules, which write their names to the file `ran`."""

    def __init__(self, path: Path, ran: Path) -> None:
        self.path, self._ran = path, ran
        path.mkdir()
        for name in NAMES:
            (path / f"{name}.py").write_text(PLANTED.format(ran=str(ran)))
        for name in ("tracer", "multiprocessing", "numpy"):
            (path / name).mkdir()
            for file in ("__init__.py", "__main__.py", "spawn.py", "resource_tracker.py"):
                (path / name / file).write_text(PLANTED.format(ran=str(ran)))
        (path / "matplotlibrc").write_text("planted.key: 1\n")
        if os.geteuid() == 0:
            for planted in (path, *path.rglob("*")):
                os.chown(planted, NOBODY, NOBODY)

    @property
    def ran(self) -> list[str]:
        """Return the names of the planted modules that ran since the last look."""
        found = self._ran.read_text().split() if self._ran.exists() else []
        self._ran.unlink(missing_ok=True)
        return found

    def run(self, argv: list[str]) -> None:
        """Run a command in this directory, and require that no file of it was used."""
        ended = subprocess.run(argv, cwd=self.path, capture_output=True, text=True, check=False)
        assert self.ran == []
        assert "planted" not in ended.stderr
        statuses = (0, 1) if argv[1] in ("doctor", "fit") else (0,)  # lacks of the machine, and of runs
        assert ended.returncode in statuses, ended.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    top = tmp_path_factory.mktemp("hostile")
    return Folder(top / "somebodys", top / "ran")


@pytest.fixture
def argv_of(tmp_path: Path, write_trace: WriteTrace) -> ArgvOf:
    """Return `argv_of(verb, arguments)`, with paths of two traces, of their folder and of outputs."""
    (tmp_path / "spool").mkdir()
    places = {
        "trace": write_trace("spool/one"),
        "other": write_trace("spool/two", container="web-1"),
        "spool": tmp_path / "spool",
        "out": tmp_path / "out",
        "ready": tmp_path / "ready",
    }
    return lambda verb, arguments: [str(PROGRAM), verb, *shlex.split(arguments.format(**places))]


def test_every_verb_has_a_case() -> None:
    cases = sorted([*ROOTLESS, *TRACING, *SERVING])
    assert cases == sorted(VERBS), "each verb has its arguments in ROOTLESS, TRACING or SERVING"


def test_planted_modules_run_where_python_looks_for_them(folder: Folder) -> None:
    """This makes sure that the tests below can fail."""
    for command in (["-m", "tracer", "info"], ["-c", "import numpy"], ["-c", "import json"]):
        subprocess.run([sys.executable, *command], cwd=folder.path, capture_output=True, check=False)
    ran = folder.ran
    assert ran[-2:] == ["numpy", "json"]
    assert len(ran) == 3


@pytest.mark.parametrize("verb", ROOTLESS)
def test_verb_runs_nothing_of_the_working_directory(verb: str, folder: Folder, argv_of: ArgvOf) -> None:
    folder.run(argv_of(verb, ROOTLESS[verb]))


def test_explanation_of_the_live_view_runs_nothing_of_the_working_directory(
    folder: Folder, write_trace: WriteTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}")
    arguments = (str(write_trace()), "/memcg-tracer-77-page-cache")
    with start_module("tracer.top.explaining", *arguments, stdout=subprocess.PIPE) as child:
        assert b"limit" in child.communicate()[0]
    assert folder.ran == []


BESIDE = ("record", "top", "serve")
"""Verbs that make no cgroup that other tests look for, and write nothing of others' kills."""


def marked(verbs: dict[str, str]) -> list[Any]:
    """Return the verbs as parameters, with the mark of those that may run beside other kernel tests."""
    return [pytest.param(verb, marks=pytest.mark.beside if verb in BESIDE else ()) for verb in verbs]


@pytest.mark.kernel
@pytest.mark.parametrize("verb", marked(TRACING))
def test_verb_that_traces_runs_nothing_of_the_working_directory(
    verb: str, folder: Folder, argv_of: ArgvOf, tmp_path: Path
) -> None:
    if verb == "fit":
        begin_search(tmp_path / "out", ["true"], folder.path)
    folder.run(argv_of(verb, TRACING[verb]))


@pytest.mark.kernel
@pytest.mark.parametrize("verb", marked(SERVING))
def test_verb_that_goes_on_runs_nothing_of_the_working_directory(
    verb: str, folder: Folder, argv_of: ArgvOf, tmp_path: Path
) -> None:
    argv = argv_of(verb, SERVING[verb])
    with subprocess.Popen(argv, cwd=folder.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: (tmp_path / "ready").exists() or process.poll() is not None)
        if verb == "watch":
            process.send_signal(signal.SIGUSR1)
            assert process.stdout is not None
            assert b"/out/" in process.stdout.readline()  # another process has explained the trace
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert (folder.ran, b"planted" in said, process.returncode) == ([], False, 0), said
