"""What is taken for the cost of an event, and that the work which is measured leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tracer.capture.bpf.hooks import Choice
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.syscall import Runs
from tracer.capture.learn import event_cost
from tracer.errors import TracerError
from tracer.kernel.probes import Hook, Kind, Signal, Way

BEGIN, END = (Hook(Kind.RAW_TRACEPOINT, name, name) for name in ("begin", "end"))


class Measured(Programs):
    """Programs of which this was measured."""

    def __init__(self, runs: Mapping[Hook, Runs]) -> None:
        self.measured = runs

    def runs(self, hook: Hook) -> Runs:
        return self.measured[hook]


def cost_of(*hooks: Hook, **runs: Runs) -> event_cost.EventCost:
    signal = Signal("s", "reclaim", (Way(hooks),), "tells", "loses")
    measured = {hook: runs[hook.target] for hook in hooks}
    return event_cost._cost(Measured(measured), Choice(signal, signal.ways[0]))


def test_of_several_ends_an_event_has_the_one_that_ran() -> None:
    ends = [Hook(Kind.RAW_TRACEPOINT, name, name) for name in ("by_itself", "with_others")]
    runs = {"begin": Runs(4, 400), "by_itself": Runs(0, 0), "with_others": Runs(2, 100)}
    assert cost_of(BEGIN, *ends, **runs) == event_cost.EventCost(4, 150.0)


def test_an_event_costs_what_a_run_takes() -> None:
    assert cost_of(BEGIN, begin=Runs(4, 1000)) == event_cost.EventCost(4, 250.0)


def test_begin_and_end_are_one_event_also_where_ends_of_others_ran_the_same_program() -> None:
    assert cost_of(BEGIN, END, begin=Runs(4, 1000), end=Runs(10, 500)) == event_cost.EventCost(4, 300.0)


def test_what_did_not_happen_has_no_cost() -> None:
    assert cost_of(BEGIN, END, begin=Runs(0, 0), end=Runs(10, 500)) == event_cost.EventCost(0, None)
    assert cost_of(BEGIN, END, begin=Runs(1, 90), end=Runs(0, 0)) == event_cost.EventCost(1, None)


def test_a_process_that_cannot_enter_the_cgroup_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="the work to be measured failed"):
        event_cost._work_in(tmp_path / "none")


def test_work_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_cost, "_WITHIN_S", 0.0)
    with pytest.raises(TracerError, match="not done within"):
        event_cost._work_in(tmp_path)


@pytest.mark.kernel
def test_the_work_leaves_nothing_in_the_cgroup(memcg: Path) -> None:
    event_cost._work_in(memcg)
    assert (memcg / "cgroup.procs").read_text() == ""
    assert [child.name for child in memcg.iterdir() if child.is_dir()] == []
