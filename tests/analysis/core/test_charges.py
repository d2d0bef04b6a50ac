"""The arrays of the ledger, against its DataFrame."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.columns import NO_ID, integers, times_ns
from tracer.analysis.core.rows import NOT_READ, Charges
from tracer.enumerations import CATEGORY
from tracer.schema import UNLIMITED_BYTES

ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),  # seconds
        st.integers(1, 4),  # cgroup
        st.none() | st.integers(1, 3),  # tgid
        st.sampled_from(["anon", "file", "swap", "of a later version"]),
        st.integers(-9, 9),  # bytes
        st.none() | st.integers(0, 9),  # usage
        st.sampled_from([None, 5, UNLIMITED_BYTES]),
    ),
    max_size=30,
)


def charged(trace: Any, rows: list[Any]) -> Charges:
    for seconds, cgroup_id, tgid, category, amount, usage, limit in rows:
        readings = {"usage_bytes": usage, "limit_bytes": limit}
        trace.charged(seconds, cgroup_id, category, amount, tgid=tgid, **readings)
    return Charges.from_trace(trace)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_charges_are_rows_in_order_of_time(rows: list[Any], new_trace: Any) -> None:
    trace = new_trace()
    found = charged(trace, rows)
    frame = trace.charge
    assert found.time.tolist() == times_ns(frame).tolist()
    assert found.cgroup_id.tolist() == frame["cgroup_id"].tolist()
    assert found.tgid.tolist() == integers(frame["tgid"]).tolist()
    assert found.bytes.tolist() == frame["bytes"].tolist()
    words = [CATEGORY.names[code] if code >= 0 else "of a later version" for code in found.category.tolist()]
    assert words == frame["category"].tolist()
    assert found.usage_bytes.tolist() == integers(frame["usage_bytes"], missing=NOT_READ).tolist()
    limits = frame["limit_bytes"].mask(frame["is_limited"].eq(False).fillna(False), UNLIMITED_BYTES)
    assert found.limit_bytes.tolist() == integers(limits, missing=NOT_READ).tolist()
    assert found.is_read("limit_bytes").tolist() == frame["is_limited"].notna().tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, ids=st.sets(st.integers(0, 5)))
def test_charges_of_cgroups_are_their_rows(rows: list[Any], ids: set[int], new_trace: Any) -> None:
    trace = new_trace()
    found = charged(trace, rows).of_cgroups(np.array(sorted(ids), dtype=np.int64))
    wanted = trace.charge[trace.charge["cgroup_id"].isin(ids)]
    assert found.time.tolist() == times_ns(wanted).tolist()
    assert found.bytes.tolist() == wanted["bytes"].tolist()


def test_charges_weighted_sum_leaves_other_categories_out(trace: Any) -> None:
    rows = [(1, 1, None, kind, 10, None, None) for kind in ("file", "shmem", "anon", "of a later version")]
    picked, amounts = charged(trace, rows).weighted({"file": 1, "shmem": -1})
    assert picked.tolist() == [True, True, False, False]
    assert amounts[picked].tolist() == [10, -10]
    assert charged(trace, []).tgid.tolist() == [NO_ID] * 4
