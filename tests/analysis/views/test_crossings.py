"""The spans that sums cross, compared with each sum one by one, and what a group of events costs."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.columns import NO_ID
from tracer.analysis.views.page_histories import RankedSums, Spans

moments: Final = st.integers(0, 6)
devices: Final = st.integers(0, 2)


def spans(rows: list[tuple[int, int, int, int]]) -> Spans:
    return Spans(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def span(files: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int, int, int]]:
    return st.tuples(files, devices, moments, moments).map(
        lambda row: (row[0], row[1], min(row[2:]), max(row[2:]))
    )


@given(st.lists(span(st.integers(NO_ID, 3))), st.lists(span(st.integers(0, 4))))
def test_a_span_is_crossed_by_each_sum_that_may_concern_its_file(sums: Any, asked: Any) -> None:
    expected = [
        any(
            (device == its if of == NO_ID else of == file) and begun <= end and begin <= over
            for of, its, begun, over in sums
        )
        for file, device, begin, end in asked
    ]
    assert RankedSums.from_spans(spans(sums)).cross(spans(asked)).tolist() == expected


def test_a_group_of_events_does_not_rank_the_sums_of_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = RankedSums.from_spans(spans([(number, 0, number, number) for number in range(1000)]))
    handled = list[int]()
    search = np.searchsorted

    def counted(numbers: Any, asked: Any, *side: Any) -> Any:
        handled.append(np.size(asked))
        return search(numbers, asked, *side)

    monkeypatch.setattr(np, "searchsorted", counted)
    monkeypatch.delattr(np, "unique")
    monkeypatch.delattr(np, "sort")
    assert sums.cross(spans([(7, 0, 0, 9), (8, 0, 9, 9)])).tolist() == [True, False]
    assert set(handled) == {2}
