from __future__ import annotations

from typing import Any

from tracer.analysis.core.columns import NO_ID
from tracer.analysis.core.rows import rows_of


def test_rows_have_values_of_all_rows_in_recorded_order(trace: Any) -> None:
    for number in range(20):
        cgroup_id = None if number % 3 == 0 else number
        op, cause = ("add", "read") if number % 2 else ("delete", "truncate")
        trace.add(
            "pagecache", 5 - number, cgroup_id=cgroup_id, tgid=number, op=op, cause=cause, nr_pages=number
        )
    columns = ("time", "cgroup_id", "tgid", "op", "cause", "nr_pages")
    found = list(rows_of(trace, "pagecache", columns))
    assert [len(rows) for rows in found] == [7, 7, 6]

    def joined(arrays: list[Any]) -> list[Any]:
        return [value for array in arrays for value in array.tolist()]

    assert joined([rows.integers("time") for rows in found]) == [trace.ns(5 - n) for n in range(20)]
    assert joined([rows.integers("tgid") for rows in found]) == list(range(20))
    owners = [NO_ID if number % 3 == 0 else number for number in range(20)]
    assert joined([rows.integers("cgroup_id") for rows in found]) == owners
    assert joined([rows.known("cgroup_id") for rows in found]) == [number % 3 != 0 for number in range(20)]
    assert joined([rows.known("tgid") for rows in found]) == [True] * 20
    assert joined([rows.codes("cause", ["fault", "read"]) for rows in found]) == [
        1 if number % 2 else -1 for number in range(20)
    ]
