"""The recorded experiments: each trace gives the answer of its label, on any machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner
from support.recorded import NAMES, TRACES, opened

from tracer.cli.group import group
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine


@pytest.mark.parametrize("name", NAMES)
def test_checks_of_a_recorded_experiment_pass(name: str) -> None:
    checks = examine(EXPERIMENTS[name], opened(name))
    assert [check for check in checks if not check.passed] == []
    assert len(checks) > 1


@pytest.mark.parametrize("name", NAMES)
def test_recorded_trace_is_smaller_than_250_kb(name: str) -> None:
    assert sum(file.stat().st_size for file in (TRACES / name).iterdir()) < 250_000


@pytest.mark.parametrize("name", [name for name in NAMES if name != "page-cache"])
def test_explanation_of_a_recorded_experiment_matches_the_golden_file(
    name: str, monkeypatch: pytest.MonkeyPatch, matches_golden: Callable[[str, str], None]
) -> None:
    """The test for page-cache is in tests/test_example.py, with its other views."""
    monkeypatch.chdir(TRACES.parent)
    shown = CliRunner().invoke(group, ["explain", f"traces/{name}"], catch_exceptions=False)
    assert shown.exit_code == 0
    matches_golden(str(TRACES / f"{name}.explain.txt"), shown.output)
