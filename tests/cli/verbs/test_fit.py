from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from support.schemas import require_form

from tracer.cli.verbs import fit
from tracer.errors import TracerError, UsageError
from tracer.fit import recorded_run
from tracer.fit.recorded_run import Look
from tracer.fit.search import Run

MIB = 1 << 20
NEED = 90 * MIB


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Replace the runs by those of a command that needs `NEED`. Return the list of their limits."""
    tried: list[int | None] = []

    def run(_: object, limit_bytes: int | None, trace: Path, most_s: float | None, look: Look) -> Run:
        tried.append(limit_bytes)
        look(trace, 61.0)
        lives = limit_bytes is None or limit_bytes >= NEED
        return Run(limit_bytes, 0 if lives else 137, 1.0, 0, int(not lives), 200 * MIB, trace.name)

    monkeypatch.setattr(recorded_run, "files_of", lambda _: frozenset[str]())
    monkeypatch.setattr(recorded_run, "run", run)
    return tried


def test_answers_and_runs_are_printed(limits: list[int | None], tmp_path: Path) -> None:
    result = CliRunner().invoke(fit.command, ["-o", str(tmp_path / "\x1b[31mfit"), "--", "true", "\x1b[31m"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("It succeeds from 9")
    assert "It is at most 10 % slower from 9" in result.stdout
    assert "\x1b" not in result.output
    assert all(len(line) <= 100 for line in result.stdout.splitlines())
    assert f"run {len(limits)} at " in result.stderr
    assert result.stderr.count("fit is for commands that end") == 1
    lines = result.stderr.splitlines()
    assert (lines[0], lines[2]) == (
        "memcg-tracer: run 1 without a limit",
        "memcg-tracer: run 1 without a limit: 1 s, succeeded",
    )


def test_json_has_the_contract(limits: list[int | None], tmp_path: Path) -> None:
    result = CliRunner().invoke(fit.command, ["-o", str(tmp_path / "fit"), "--json", "--", "true"])
    document = json.loads(result.stdout)
    require_form("fit", document)
    assert document["comfortable_by"] == "wall_s"
    assert NEED <= document["least_limit_bytes"] == document["comfortable_limit_bytes"] <= NEED + 2 * MIB
    assert [run["limit_bytes"] for run in document["runs"]] == limits
    assert set(document["runs"][0]) >= {"limit_bytes", "status", "wall_s", "refaulted_bytes", "kills"}
    assert ElementTree.parse(document["curve"]).getroot().tag.endswith("svg")


def test_without_matplotlib_the_answers_come_without_a_picture(
    limits: list[int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "tracer.render.fit.curve", raising=False)
    result = CliRunner().invoke(fit.command, ["-o", str(tmp_path / "fit"), "--json", "--", "true"])
    document = json.loads(result.stdout)
    assert document["curve"] is None
    assert document["least_limit_bytes"] >= NEED
    assert "the curve needs matplotlib: pip install 'memcg-tracer[plot]'" in result.stderr
    assert not list((tmp_path / "fit").glob("*.svg"))


def test_search_without_enough_runs_says_so_and_goes_on(limits: list[int | None], tmp_path: Path) -> None:
    arguments = ["-o", str(tmp_path / "fit"), "--", "true"]
    result = CliRunner().invoke(fit.command, ["--runs", "6", *arguments])
    assert result.exit_code == 1
    assert "not found yet" in result.stdout
    assert "The search is not complete" in result.stdout
    assert len(limits) == 6
    result = CliRunner().invoke(fit.command, arguments)
    assert result.exit_code == 0
    assert limits.count(None) == 4


def test_command_that_fails_without_a_limit_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorded_run, "run", lambda *_: Run(None, 3, 1.0, 0, 0, MIB, "run-1"))
    result = CliRunner().invoke(fit.command, ["-o", str(tmp_path / "fit"), "--", "false"])
    assert isinstance(result.exception, TracerError)
    assert "fails without a limit (status 3)" in str(result.exception)
    assert result.stderr == "memcg-tracer: run 1 without a limit\n"


def test_bounds_that_exclude_each_other_are_a_usage_error() -> None:
    result = CliRunner().invoke(fit.command, ["--from", "64M", "--to", "64M", "--", "true"])
    assert isinstance(result.exception, UsageError)
