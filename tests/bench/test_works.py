"""The comparison of tracers, with a work and tracers whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bench import works
from bench.perf import PERF
from bench.results import Results
from bench.tracers import Account, Command, Session, Tracer, untraced
from bench.works import Phase, Spent, Work, compare

from tracer.errors import TracerError

COST = {"untraced": 1.0, "record": 1.2, "perf record": 1.5, "nothing": 1.01}
MISSING = Tracer("empty programs", untraced, why_not=lambda: "no such tracepoint")


class Runs:
    """A place whose work takes a known time with each tracer, and twice as long from the fifth run on."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self.order: list[str] = []
        self._accounts = accounts

    @contextmanager
    def place(self, _folder: Path, _scale: float) -> Iterator[Callable[[Tracer], tuple[Spent, Account]]]:
        def run(tracer: Tracer) -> tuple[Spent, Account]:
            self.order.append(tracer.name)
            slow = 2.0 if len(self.order) > 4 else 1.0
            seconds = COST[tracer.name] * slow
            return {"write": (2 * seconds, seconds)}, self._accounts.get(tracer.name, Account())

        yield run


@pytest.fixture(autouse=True)
def no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError

    monkeypatch.setattr(works, "enable_statistics", refuse)


def found(work: Work, rounds: int, folder: Path) -> Results:
    results = Results()
    compare(work, Session([Command("record", folder)], rounds, 1.0, folder, results))
    return results


def test_slowdowns_are_those_of_each_round_against_its_untraced_run(tmp_path: Path) -> None:
    runs = Runs({})
    work = Work("write", {"write": Phase("a write", is_at_most_perf=True)}, runs.place, (PERF,))
    results = found(replace(work, others=(replace(PERF, why_not=lambda: None),)), 2, tmp_path)
    assert runs.order == [
        *("untraced", "record", "perf record", "nothing"),
        *("nothing", "perf record", "record", "untraced"),
    ]
    percent = {one.by: one.processor_percent for one in results.slowdowns}
    assert {by: [round(value, 6) for value in values] for by, values in percent.items()} == {
        "record": [20, 20],
        "perf record": [50, 50],
        "nothing": [1, 1],
    }
    assert {one.by: one.at_most and round(one.at_most) for one in results.slowdowns} == {
        "record": 50,
        "perf record": None,
        "nothing": None,
    }


def test_cost_of_a_million_events_counts_lost_ones(tmp_path: Path) -> None:
    runs = Runs({"record": Account(processor_s=0.3, folios=450_000, lost=150_000, disk_bytes=900_000)})
    work = Work("write", {"write": Phase("a write")}, runs.place, events=("sequential", 0.4))
    figures = {one.what: one for one in found(work, 1, tmp_path).figures}
    each = figures["CPU for a million sequential events"]
    assert each.values == [pytest.approx(0.5)]
    assert each.at_most == 0.4
    assert figures["lost sequential events"].values == [25]
    assert figures["disk for one of the sequential events"].values == [2]


def test_share_of_a_core_is_that_during_the_work(tmp_path: Path) -> None:
    runs = Runs({"record": Account(processor_s=9.0, share=0.02)})
    work = Work("write", {"write": Phase("a write")}, runs.place, share_at_most=2)
    shares = [one for one in found(work, 1, tmp_path).figures if one.unit == "% of a core"]
    assert [(one.by, one.values, one.at_most) for one in shares] == [("record", [2.0], 2)]


def test_tracer_that_the_machine_lacks_is_left_out_and_named(tmp_path: Path) -> None:
    work = Work("write", {"write": Phase("a write")}, Runs({}).place, (MISSING,))
    results = found(work, 1, tmp_path)
    assert results.left_out == ["write, empty programs: no such tracepoint"]
    assert [one.by for one in results.slowdowns] == ["record", "nothing"]


def test_work_that_the_machine_lacks_is_refused(tmp_path: Path) -> None:
    work = Work("sql", {}, Runs({}).place, why_not=lambda: "PostgreSQL is not installed")
    with pytest.raises(TracerError, match="not installed"):
        found(work, 1, tmp_path)
