"""Fixtures of datasets: recorded examples, their summaries, and stores."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.recorded import TRACES
from support.storing.object_store import ObjectStore, object_store

from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.dataset import appending
from tracer.fleet.summary.summarize import Summary, summarize


@cache
def summary_of(path: Path) -> Summary:
    return summarize(AnalysedTrace(path))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each trace summarized once only."""
    monkeypatch.setattr(appending, "summarize", lambda trace: summary_of(trace.path))


@pytest.fixture
def few_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have only some of the raw tables, which take most of the time."""
    monkeypatch.setattr(appending, "TABLES", ("charge", "oom", "tasks"))


@pytest.fixture
def memory() -> Iterator[type[ObjectStore]]:
    with object_store() as kind:
        yield kind


@pytest.fixture
def examples() -> list[AnalysedTrace]:
    """Return three of the recorded examples: one kill, three kills, none."""
    return [AnalysedTrace(TRACES / name) for name in ("fork", "sharedbuffers", "thrash")]
