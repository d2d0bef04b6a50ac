"""The bars of evictions: the numbers of `t.evictions`, whatever their number and their names."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.container import BarContainer

from tracer.errors import UsageError
from tracer.render.plot import eviction_bars
from tracer.render.plot.opened_trace import OpenedTrace


def processes(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tgid": pd.array(range(count), dtype="Int64"),
            "comm": [f"worker-{number}" for number in range(count)],
            "task_cgroup": ["/web"] * count,
            "evicted_bytes": [4096 * (count - number) for number in range(count)],
            "returned_bytes": [4096 * (number % 2) for number in range(count)],
        }
    )


@pytest.mark.parametrize("by", ["file", "cgroup", "cause", "process"])
def test_bars_are_the_evicted_and_the_returned_bytes_of_the_table(thrash: OpenedTrace, by: str) -> None:
    axes = thrash.plot.evictions(by)
    table = thrash.evictions(by)
    table = table[table["evicted_bytes"] > 0]
    again, rest = (
        [patch.get_width() for patch in container.patches]
        for container in axes.containers
        if isinstance(container, BarContainer)
    )
    assert again == table["returned_bytes"].tolist()
    assert [one + other for one, other in zip(again, rest, strict=True)] == table["evicted_bytes"].tolist()
    assert sum(again) > 100 << 20


def test_rows_after_the_first_twelve_are_one_bar_that_keeps_the_sum() -> None:
    table = processes(40)
    drawn = eviction_bars.bars(table, "process")
    assert len(drawn) == eviction_bars.MOST_BARS + 1
    assert drawn["name"].tolist()[0] == "worker-0 0"
    assert drawn["name"].tolist()[-1] == "28 more processes"
    for column in ("evicted_bytes", "returned_bytes"):
        assert drawn[column].sum() == table[column].sum()


def test_rows_without_evictions_have_no_bar() -> None:
    table = processes(3)
    table["evicted_bytes"] = [4096, 0, 0]
    assert eviction_bars.bars(table, "process")["name"].tolist() == ["worker-0 0"]
    assert eviction_bars.bars(processes(0), "process").empty


def test_summed_events_are_said_to_give_the_least(thrash: OpenedTrace) -> None:
    drawn = eviction_bars.bars(thrash.evictions(), "file")
    axes = thrash.plot.evictions()
    axes.clear()
    eviction_bars.draw(axes, drawn, "file", is_exact=False)
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {
        "not seen to be read again",
        "read again later (at least)",
    }


def test_other_groupings_are_refused(thrash: OpenedTrace) -> None:
    with pytest.raises(UsageError, match="by 'inode'"):
        thrash.plot.evictions("inode")


def test_trace_without_evictions_says_so() -> None:
    _, axes = pyplot.subplots()
    drawn = eviction_bars.bars(processes(0), "process")
    eviction_bars.draw(axes, drawn, "process", is_exact=True)
    assert [text.get_text() for text in axes.texts] == ["No page cache was evicted."]
