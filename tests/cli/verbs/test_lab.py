from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner
from support.schemas import require_form

from tracer.cli.verbs import lab
from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy
from tracer.lab import run as lab_run
from tracer.lab.checks import Check
from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.run import Outcome


def outcome(*passed: bool) -> Outcome:
    checks = tuple(Check(f"check {number}", ok, "1 of \x1b[31m2") for number, ok in enumerate(passed))
    return Outcome("anon", "anon_growth", None, Path("traces/[red]x"), checks)


@pytest.mark.parametrize("arguments", [[], ["--list"], ["anon", "--list"]])
def test_lab_list_has_every_experiment(arguments: list[str]) -> None:
    result = CliRunner().invoke(lab.command, arguments)
    assert result.exit_code == 0, result.output
    assert all(experiment.summary in result.stdout for experiment in EXPERIMENTS.values())
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


def test_lab_list_wraps_between_words_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(lab.command, ["--list"]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    shown = set(" ".join(lines).split())
    assert all(shown >= set(experiment.summary.split()) for experiment in EXPERIMENTS.values())


def test_lab_list_as_json_has_every_experiment() -> None:
    result = CliRunner().invoke(lab.command, ["--list", "--json"])
    require_form("lab", json.loads(result.stdout))
    assert [entry["name"] for entry in json.loads(result.stdout)] == list(EXPERIMENTS)


@pytest.mark.parametrize(("passed", "status"), [((True, True), 0), ((True, False), 1)])
def test_checks_are_shown_and_decide_the_status(
    monkeypatch: pytest.MonkeyPatch, passed: tuple[bool, ...], status: int
) -> None:
    monkeypatch.setattr("tracer.lab.run.run", lambda *_: outcome(*passed))
    result = CliRunner().invoke(lab.command, ["anon"])
    assert result.exit_code == status
    assert result.stdout.splitlines()[0] == r"PASS  check 0: 1 of \x1b[31m2"
    assert "trace: traces/[red]x" in result.stdout
    assert result.stdout.count("FAIL") == passed.count(False)


def test_lab_json_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.lab.run.run", lambda *_: outcome(True, False))
    result = CliRunner().invoke(lab.command, ["anon", "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    require_form("lab", document)
    assert document["passed"] is False
    assert [check["passed"] for check in document["checks"]] == [True, False]


RUN = ("anon", "fork", "dirty", "group-kill")


@pytest.fixture
def some_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path | None]:
    """Replace the run: `dirty` fails, and one experiment needs v2. Return the paths of the traces."""
    outputs: dict[str, Path | None] = {}

    def run(experiment: Experiment, output: Path | None, _force: bool) -> Outcome:
        outputs[experiment.name] = output
        return replace(outcome(True, experiment.name != "dirty"), experiment=experiment.name)

    monkeypatch.setattr("tracer.lab.run.run", run)
    monkeypatch.setattr(lab, "EXPERIMENTS", {name: EXPERIMENTS[name] for name in RUN})
    monkeypatch.setattr(lab_run, "memory_hierarchy", lambda: Hierarchy(1, tmp_path, "/"))
    return outputs


def test_all_runs_the_possible_experiments(some_run: dict[str, Path | None]) -> None:
    result = CliRunner().invoke(lab.command, ["--all", "-o", "there"])
    assert result.exit_code == 1
    assert some_run == {name: Path("there", name) for name in RUN[:-1]}
    assert all(len(line) <= 100 for line in result.stdout.splitlines())
    passed, failed, *skipped = result.stdout.splitlines()[-4:]
    assert passed == "2 of 3 experiments passed"
    assert failed == "failed: dirty"
    assert skipped[0].startswith("skipped: group-kill needs memory.oom.group, which cgroup v1 does not have")


def test_failed_experiment_does_not_end_the_others(
    some_run: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(experiment: Experiment, output: Path | None, force: bool) -> Outcome:
        if experiment.name == "fork":
            raise TracerError("no room")
        return some(experiment, output, force)

    some = lab_run.run
    monkeypatch.setattr("tracer.lab.run.run", run)
    result = CliRunner().invoke(lab.command, ["--all"])
    assert result.exit_code == 1
    assert list(some_run) == ["anon", "dirty"]
    assert "failed: fork, dirty" in result.stdout
    assert "memcg-tracer: fork: no room\n" in result.stderr


def test_all_as_json_is_a_line_for_each_experiment(some_run: dict[str, Path | None]) -> None:
    result = CliRunner().invoke(lab.command, ["--all", "--json"])
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["experiment"], one["passed"]) for one in documents] == [
        *(("anon", True), ("fork", True), ("dirty", False))
    ]
    assert "2 of 3 experiments passed" in result.stderr
    assert list(some_run.values()) == [None] * 3


def test_name_with_all_is_a_usage_error() -> None:
    result = CliRunner().invoke(lab.command, ["anon", "--all"])
    assert isinstance(result.exception, UsageError)


def test_resize_runs_the_work_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def verified(_: object, found: Outcome, repeat: int) -> Outcome:
        asked.append(repeat)
        return replace(found, checks=(*found.checks, Check("it lives", False, "1 of 2")))

    monkeypatch.setattr("tracer.lab.run.run", lambda *_: outcome(True))
    monkeypatch.setattr("tracer.lab.resize.verified", verified)
    results = [
        CliRunner().invoke(lab.command, options)
        for options in (["anon"], ["anon", "--resize"], ["anon", "--resize", "--repeat", "2"])
    ]
    assert [result.exit_code for result in results] == [0, 1, 1]
    assert asked == [5, 2]
    assert "FAIL  it lives: 1 of 2" in results[1].stdout
    for options in (["anon", "--repeat", "2"], ["--resize"], ["--all", "--resize"]):
        assert isinstance(CliRunner().invoke(lab.command, options).exception, UsageError)


def test_unknown_experiment_is_a_usage_error() -> None:
    assert CliRunner().invoke(lab.command, ["cold-fusion"]).exit_code == 2


def test_experiment_for_v2_on_v1_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lab_run, "memory_hierarchy", lambda: Hierarchy(1, tmp_path, "/"))
    with pytest.raises(TracerError, match=r"group-kill needs memory\.oom\.group, .* on v2") as caught:
        lab_run.run(EXPERIMENTS["group-kill"], tmp_path / "trace", False)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


class FakeRecord:
    """Stands in for the recording process."""

    commands: ClassVar[list[list[str]]] = []

    def __init__(self, command: list[str], printed: bytes, returncode: int) -> None:
        self.commands.append(command)
        self.returncode = returncode
        self._printed = printed

    def communicate(self) -> tuple[bytes, None]:
        return self._printed, None


def test_recorded_command_is_that_of_the_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FakeRecord, "commands", [])
    trace = tmp_path / "new" / "trace"
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **_: FakeRecord(command, os.fsencode(trace) + b"\n", 137)
    )
    monkeypatch.setattr(lab_run, "examine", lambda *_: ())
    monkeypatch.setattr(lab_run, "AnalysedTrace", lambda path: path)
    assert lab_run.run(EXPERIMENTS["page-cache"], trace, True).trace == trace
    (recorded,) = FakeRecord.commands
    options, command = recorded[: recorded.index("--")], recorded[recorded.index("--") + 1 :]
    assert options[options.index("-o") + 1] == str(trace)
    assert options[options.index("--limit") + 1] == str(100 << 20)
    assert "-f" in options
    file = Path(command[command.index("read") + 1])
    assert file.parent.parent == tmp_path
    assert not file.exists()


def test_failed_recording_of_an_experiment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: FakeRecord(command, b"", 1))
    with pytest.raises(TracerError, match="record ended with status 1"):
        lab_run.run(EXPERIMENTS["anon"], tmp_path / "trace", False)


ELSEWHERE = {"page-cache": pytest.mark.vm, "dirty": pytest.mark.vm_once, "group-kill": pytest.mark.vm_once}
"""On Linux 6.1, `dirty` can end without a kill."""


@pytest.mark.kernel
@pytest.mark.parametrize("name", [pytest.param(name, marks=ELSEWHERE.get(name, ())) for name in EXPERIMENTS])
def test_experiment_passes_on_this_kernel(disk_dir: Path, name: str) -> None:
    needed = EXPERIMENTS[name].needs_v2
    if needed is not None and memory_hierarchy().version == 1:
        pytest.skip(f"needs cgroup v2: v1 has no {needed}")
    resized = ["--resize", "--repeat", "1"] if name == "anon" else []
    result = CliRunner().invoke(lab.command, [name, "-o", str(disk_dir / "trace"), "--json", *resized])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [check for check in document["checks"] if not check["passed"]] == []
    done = (*EXPERIMENTS[name].checks, *EXPERIMENTS[name].survival)
    of_limit = 2 if resized else 0  # that a lower end is known, and runs below it
    assert len(document["checks"]) == 1 + len(done) + of_limit
    assert sorted(path.name for path in disk_dir.iterdir()) == ["trace"]
    assert lab_cgroups() == []


@pytest.mark.kernel
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_ended_experiment_leaves_nothing(disk_dir: Path, number: int, to_group: bool) -> None:
    command = [sys.executable, "-m", "tracer", "lab", "page-cache", "-o", str(disk_dir / "trace")]
    lab_process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert lab_process.stderr is not None
    assert "tracing" in lab_process.stderr.readline()
    assert lab_cgroups() != []
    (os.killpg if to_group else os.kill)(lab_process.pid, number)
    lab_process.communicate()
    assert lab_process.returncode == 128 + signal.SIGINT
    assert lab_cgroups() == []
    assert [path.name for path in disk_dir.iterdir()] == ["trace"]


def lab_cgroups() -> list[str]:
    return [path.name for path in memory_hierarchy().mount.glob("memcg-tracer-*-lab-*")]
