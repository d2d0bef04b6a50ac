from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from tracer.analysis.core import rows
from tracer.analysis.core.columns import NO_ID
from tracer.analysis.core.rows import each, rows_of


def test_rows_have_values_of_all_rows_in_recorded_order(trace: Any) -> None:
    for number in range(20):
        cgroup_id = None if number % 3 == 0 else number
        op, cause = ("add", "read") if number % 2 else ("delete", "truncate")
        trace.add(
            "pagecache", 5 - number, cgroup_id=cgroup_id, tgid=number, op=op, cause=cause, nr_pages=number
        )
    columns = ("time", "cgroup_id", "tgid", "op", "cause", "nr_pages")
    found = list(rows_of(trace, "pagecache", columns))
    assert [len(one) for one in found] == [7, 7, 6]

    def joined(arrays: list[Any]) -> list[Any]:
        return [value for array in arrays for value in array.tolist()]

    assert joined([one.integers("time") for one in found]) == [trace.ns(5 - n) for n in range(20)]
    assert joined([one.integers("tgid") for one in found]) == list(range(20))
    owners = [NO_ID if number % 3 == 0 else number for number in range(20)]
    assert joined([one.integers("cgroup_id") for one in found]) == owners
    assert joined([one.known("cgroup_id") for one in found]) == [number % 3 != 0 for number in range(20)]
    assert joined([one.known("tgid") for one in found]) == [True] * 20
    assert joined([one.codes("cause", ["fault", "read"]) for one in found]) == [
        1 if number % 2 else -1 for number in range(20)
    ]


def test_each_gives_results_in_order_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_THREADS", 2)
    first_may_end = Event()

    def find(number: int) -> int:
        if number:
            first_may_end.set()
        else:
            assert first_may_end.wait(10)
        return number**2

    assert list(each(find, range(50))) == [number**2 for number in range(50)]


def test_each_raises_the_error_of_an_item_after_the_results_before_it() -> None:
    results = each(lambda number: 1 // number, [1, 1, 0, 1])
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
