"""The cost of an event, and the work that is measured."""

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

BEGIN, END = (Hook(Kind.TYPED_TRACEPOINT, name, name) for name in ("begin", "end"))


class Measured(Programs):
    """Programs with these measurements."""

    def __init__(self, runs: Mapping[Hook, Runs]) -> None:
        self.measured = runs

    def runs(self, hook: Hook) -> Runs:
        return self.measured[hook]


def cost_of(*hooks: Hook, **runs: Runs) -> event_cost.EventCost:
    signal = Signal("s", "reclaim", (Way(hooks),), "tells", "loses")
    measured = {hook: runs[hook.target] for hook in hooks}
    return event_cost._cost(Measured(measured), Choice(signal, signal.ways[0]))


def test_cost_with_several_ends_counts_the_one_that_ran() -> None:
    ends = [Hook(Kind.TYPED_TRACEPOINT, name, name) for name in ("by_itself", "with_others")]
    runs = {"begin": Runs(4, 400), "by_itself": Runs(0, 0), "with_others": Runs(2, 100)}
    assert cost_of(BEGIN, *ends, **runs) == event_cost.EventCost(4, 150.0)


def test_cost_without_an_end_is_the_mean_of_a_run() -> None:
    assert cost_of(BEGIN, begin=Runs(4, 1000)) == event_cost.EventCost(4, 250.0)


def test_cost_with_a_shared_end_program_is_one_begin_and_one_end() -> None:
    assert cost_of(BEGIN, END, begin=Runs(4, 1000), end=Runs(10, 500)) == event_cost.EventCost(4, 300.0)


def test_cost_without_an_event_is_none() -> None:
    assert cost_of(BEGIN, END, begin=Runs(0, 0), end=Runs(10, 500)) == event_cost.EventCost(0, None)
    assert cost_of(BEGIN, END, begin=Runs(1, 90), end=Runs(0, 0)) == event_cost.EventCost(1, None)


def test_work_in_a_cgroup_that_is_gone_fails(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="the work to be measured failed"):
        event_cost._work_in(tmp_path / "none")


def test_work_beyond_its_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_cost, "_WITHIN_S", 0.0)
    with pytest.raises(TracerError, match="not done within"):
        event_cost._work_in(tmp_path)


@pytest.mark.kernel
@pytest.mark.beside
def test_work_when_done_leaves_the_cgroup_empty(memcg: Path) -> None:
    event_cost._work_in(memcg)
    assert (memcg / "cgroup.procs").read_text() == ""
    assert [child.name for child in memcg.iterdir() if child.is_dir()] == []
