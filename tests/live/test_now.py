"""Snapshots: each cgroup at one moment, from rows and from a recorded trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.sample_series import SECOND_NS, START_NS, cut, series

from tracer.analysis.explain.measure.composition import compose
from tracer.live.now import CgroupNow, Snapshots
from tracer.live.tally import Tally
from tracer.schema import MEMORY_STAT_BYTES, UNLIMITED_BYTES
from tracer.trace.read.reader import Trace

PAGE = 4096
PAGE_CACHE = "traces/page-cache"


def new_tally(*names: dict[str, Any]) -> Tally:
    tally = Tally(PAGE, free_swap=lambda: 0)
    tally.take("cgroups", rows("cgroups", *names))
    return tally


def sample(number: int, usage: int, limit: int | None, effective: int | None = None, **more: Any) -> Any:
    """Return a sample of a cgroup whose usage is anonymous memory, in MiB."""
    own = UNLIMITED_BYTES if limit is None else limit * MIB
    return {
        "cgroup_id": number,
        "source": "periodic",
        "time": START_NS,
        "usage_bytes": usage * MIB,
        "anon_bytes": usage * MIB,
        "file_bytes": 0,
        "limit_bytes": own,
        "effective_limit_bytes": own if effective is None else effective * MIB,
    } | more


def shown(tally: Tally, now_ns: int = START_NS) -> dict[int, CgroupNow]:
    return {one.cgroup_id: one for one in Snapshots(tally).take(now_ns)}


def replayed(trace: Trace, tables: Iterable[str]) -> Tally:
    """Return a tally that has taken the rows of a trace."""
    tally = Tally(trace.meta["page_size"], free_swap=lambda: 0)
    for table in tables:
        for batch in trace.table(table).to_batches():
            tally.take(table, batch)
    return tally


def test_cgroup_has_its_names_and_values() -> None:
    tally = new_tally(cgroup(1), cgroup(2, 1, container="web", pod="web-0", namespace="shop"))
    tally.take("samples", rows("samples", sample(2, 7, 10, high_bytes=9 * MIB, workingset_refault_file=3)))
    (one,) = shown(tally).values()
    assert (one.path, one.container, one.pod, one.namespace) == ("/2", "web", "web-0", "shop")
    assert (one.usage_bytes, one.limit_bytes, one.high_bytes) == (7 * MIB, 10 * MIB, 9 * MIB)
    assert one.refaulted_bytes == 3 * PAGE
    assert one.pressure_us == {"some": None, "full": None}
    assert one.parts["anon"] == 7 * MIB


def test_limit_is_the_least_one_above_with_its_owner() -> None:
    tally = new_tally(cgroup(1), cgroup(2, 1), cgroup(3, 2))
    tally.take("samples", rows("samples", sample(1, 50, 60), sample(2, 40, 80, 60), sample(3, 5, None, 60)))
    found = shown(tally)
    assert {number: (one.limit_bytes, one.limit_owner) for number, one in found.items()} == dict.fromkeys(
        (1, 2, 3), (60 * MIB, "/1")
    )
    assert found[2].own_limit_bytes == 80 * MIB


def test_equal_limits_belong_to_the_lowest_cgroup() -> None:
    tally = new_tally(cgroup(1), cgroup(2, 1))
    tally.take("samples", rows("samples", sample(1, 5, 60), sample(2, 5, 60)))
    assert shown(tally)[2].limit_owner == "/2"


def test_cushion_is_that_of_the_nearest_limit() -> None:
    """The limit of 3 is lower than that of 1, but others use most of 1."""
    tally = new_tally(cgroup(1), cgroup(2, 1), cgroup(3, 1))
    tally.take("samples", rows("samples", sample(1, 97, 100), sample(2, 90, None, 100), sample(3, 7, 50)))
    found = shown(tally)[3]
    assert (found.limit_bytes, found.limit_owner) == (50 * MIB, "/3")
    assert (found.cushion_bytes, found.cushion_owner) == (3 * MIB, "/1")


def test_cushion_at_the_limit_of_a_cgroup_that_is_not_traced_is_not_known() -> None:
    tally = new_tally(cgroup(2, 1))
    tally.take("samples", rows("samples", sample(2, 5, 80, 60)))
    found = shown(tally)[2]
    assert (found.limit_bytes, found.limit_owner, found.cushion_bytes) == (60 * MIB, None, None)


def test_cgroup_without_a_limit_has_neither_limit_nor_cushion() -> None:
    tally = new_tally(cgroup(1))
    tally.take("samples", rows("samples", sample(1, 5, None)))
    found = shown(tally)[1]
    assert (found.limit_bytes, found.limit_owner, found.cushion_bytes, found.seconds_to_kill) == (None,) * 4


@pytest.mark.parametrize(("rate", "is_foreseen"), [(10, True), (0, False)])
def test_seconds_to_kill_are_those_of_the_growth_also_for_the_cgroups_below(
    rate: int, is_foreseen: bool
) -> None:
    tally = new_tally(cgroup(7), cgroup(8, 7))
    tally.take("samples", rows("samples", sample(8, 5, None, 100)))
    for part in cut(series(lambda at: {"anon": 20 + rate * at}, 4), [3]):
        tally.take("samples", part)
    found = shown(tally, START_NS + 4 * SECOND_NS)
    for one in found.values():
        assert (one.seconds_to_kill is not None) == is_foreseen
        assert one.seconds_to_kill == (pytest.approx(4, rel=0.1) if is_foreseen else None)


def test_forecast_ends_when_the_growth_does() -> None:
    tally = new_tally(cgroup(7))
    for part in cut(series(lambda at: {"anon": 20 + 10 * at}, 4), [3]):
        tally.take("samples", part)
    assert shown(tally, START_NS + 9 * SECOND_NS)[7].seconds_to_kill is None


def test_cgroup_that_did_not_change_is_the_same_object() -> None:
    tally = new_tally(cgroup(1), cgroup(2, 1))
    tally.take("samples", rows("samples", sample(1, 5, 60), sample(2, 5, 50)))
    snapshots = Snapshots(tally)
    first = snapshots.take(START_NS)
    tally.take("samples", rows("samples", sample(2, 6, 50)))
    second = snapshots.take(START_NS)
    assert first[0] is second[0]
    assert second[1].usage_bytes == 6 * MIB
    tally.take("samples", rows("samples", sample(1, 5, 30)))
    assert snapshots.take(START_NS)[1].limit_bytes == 30 * MIB


def test_ledger_is_the_start_and_the_charges_and_null_without_a_start() -> None:
    tally = new_tally(cgroup(1), cgroup(2, 1), cgroup(3, 1, created=START_NS))
    starts = [sample(1, 50, None, source="start"), sample(2, 7, None), sample(3, 1, None)]
    tally.take("samples", rows("samples", *starts))
    change = [{"cgroup_id": number, "category": "anon", "bytes": MIB} for number in (2, 3)]
    tally.take("charge", rows("charge", *change))
    found = {number: one.ledger_bytes["anon"] for number, one in shown(tally).items()}
    assert found == {1: 52 * MIB, 2: None, 3: MIB}


def test_recorded_experiment_ends_with_the_sums_of_its_rows() -> None:
    trace = Trace(PAGE_CACHE)
    tables = ("cgroups", "samples", "charge", "pagecache", "reclaim", "stalls", "oom", "loss")
    (one,) = shown(replayed(trace, tables)).values()
    cache = trace.pagecache
    is_evicted = (cache.op == "delete") & cache.cause.str.startswith("reclaim_")
    assert sum(one.added_bytes.values()) == int(cache[cache.op == "add"].nr_pages.sum()) * PAGE
    assert sum(one.evicted_bytes.values()) == int(cache[is_evicted].nr_pages.sum()) * PAGE
    assert one.evictors == ((one.cgroup_id, one.path, sum(one.evicted_bytes.values())),)
    assert sum(one.attempts.values()) == len(trace.reclaim)
    assert one.reclaim_ns == int(trace.reclaim.duration_ns.sum())
    assert one.kills == 1
    assert one.limit_bytes == 100 * MIB


def test_recorded_experiment_has_at_each_sample_the_composition_of_the_analysis() -> None:
    trace = Trace(PAGE_CACHE)
    samples = pa.Table.from_batches(trace.table("samples").to_batches())
    tally = replayed(trace, ("cgroups",))
    compared = 0
    for row in range(samples.num_rows):
        (batch,) = samples.slice(row, 1).combine_chunks().to_batches()
        if batch.column("source")[0].as_py() == "oom":
            continue
        tally.take("samples", batch)
        (one,) = shown(tally).values()
        sizes = {name: batch.column(f"{name}_bytes")[0].as_py() for name in MEMORY_STAT_BYTES}
        made_of, _ = compose(sizes, batch.column("usage_bytes")[0].as_py())
        assert dict(one.parts) == dict(made_of.parts())
        compared += 1
    assert compared > 10
