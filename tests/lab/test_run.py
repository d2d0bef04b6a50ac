"""Selection of the kills and of the checks of an experiment."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic.lab_kill import (
    VICTIM,
    report,
    trace,
)

from tracer.errors import TracerError
from tracer.lab import run as lab_run
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine, record, run


@pytest.mark.parametrize("kills", [0, 2])
def test_examine_without_the_one_kill_has_one_failed_check(kills: int) -> None:
    found = examine(EXPERIMENTS["anon"], trace(explain=lambda: [report()] * kills))
    assert [check.passed for check in found] == [False]
    assert f"{kills} in the trace" in found[0].detail


def test_examine_ignores_kills_elsewhere() -> None:
    elsewhere = replace(report(), victims=(replace(VICTIM, cgroup="/memcg-tracer-1-labour"),))
    below = replace(report(), victims=(replace(VICTIM, cgroup="/memcg-tracer-1-lab/small"),))
    unknown = replace(report(), victims=(replace(VICTIM, cgroup=None),))
    for reports, passed in (([elsewhere, below, unknown], True), ([elsewhere, unknown], False)):
        found = examine(EXPERIMENTS["anon"], trace(explain=lambda reports=reports: reports))
        assert found[0].passed is passed


def test_examine_makes_all_checks_of_an_experiment() -> None:
    found = examine(EXPERIMENTS["page-cache"], trace())
    assert len(found) == 1 + len(EXPERIMENTS["page-cache"].checks)
    assert all(check.passed for check in found)


def test_output_that_exists_is_refused_before_the_experiment_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    def refuse(_scratch: Path) -> Any:
        pytest.fail("files were made for an experiment that cannot be recorded")

    with pytest.raises(TracerError, match="exists and is not empty: choose another place"):
        run(replace(EXPERIMENTS["anon"], prepare=refuse), tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_output_of_the_work_without_a_newline_is_no_part_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printing(*_arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["printf", rf"\375zXZ{tmp_path}/trace\n"], **how)

    monkeypatch.setattr(lab_run, "start_module", printing)
    assert record(EXPERIMENTS["anon"], tmp_path, tmp_path / "trace", force=False) == tmp_path / "trace"
