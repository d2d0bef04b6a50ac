"""Drawing verbs in terminals of many widths: no line breaks inside a word, or before a unit."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

import tracer
from tracer.cli.verbs import evictions, info, timeline

EXAMPLE = str(Path(__file__).parents[2] / "traces/page-cache")
ENDS_IN_A_NUMBER = re.compile(r"\d[\d,.]*$")
BEGINS_WITH_A_UNIT = re.compile(r"\s*(?:B|[KMGT]iB|[um]?s|%|min|h)(?![\w/])")
PATH = re.compile(r"/|^\s*[\w.-]+$")
"""A path that is broken because it is longer than the terminal, or the rest of one."""

WORD = re.compile(r"[a-zA-Z]{3,}[a-zA-Z-]*")


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the example once for all widths."""
    trace = tracer.open(EXAMPLE)
    monkeypatch.setattr(tracer, "open", lambda _: trace)


def drawn(command: click.Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(command, [EXAMPLE], catch_exceptions=False)
    return result.stdout.splitlines()


@pytest.mark.parametrize("verb", [evictions, info, timeline], ids=lambda module: module.__name__)
def test_views_fit_60_to_120_columns(verb: object, monkeypatch: pytest.MonkeyPatch) -> None:
    command: click.Command = verb.command  # type: ignore[attr-defined]
    known = set(WORD.findall("\n".join(drawn(command, monkeypatch, 1000))))
    for columns in range(60, 121, 6):
        lines = [line for line in drawn(command, monkeypatch, columns) if not PATH.search(line)]
        assert max(map(cell_len, lines)) <= columns
        split = [
            (line, below)
            for line, below in pairwise(lines)
            if ENDS_IN_A_NUMBER.search(line) and BEGINS_WITH_A_UNIT.match(below)
        ]
        assert split == []
        assert set(WORD.findall("\n".join(lines))) - known == set()
