"""The lives of a name: their order, their names, and the cgroups below each."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.core import naming
from tracer.analysis.views.cache_flow import cache_flow
from tracer.analysis.views.evictions import evictions, moves
from tracer.analysis.views.focus import lives_to_show, to_show
from tracer.analysis.views.timeline import timeline

ID = "4f" * 32
OTHER = "5a" * 32


def run_of(trace: Any, cgroup_id: int) -> tuple[str, int, int]:
    life = trace.places.lives.life_for(cgroup_id)
    return life.name, life.run, life.runs


def test_run_follows_creation_not_the_order_of_the_table(trace: Any) -> None:
    for number, made in ((3, 4.0), (1, None), (2, 2.0)):
        trace.add("cgroups", cgroup_id=number, path="/a", created=None if made is None else trace.ns(made))
    assert [run_of(trace, number) for number in (1, 2, 3)] == [("/a", run, 3) for run in (1, 2, 3)]
    assert naming.select(trace, "/a") == [1, 2, 3]
    assert run_of(trace, 99) == ("id:99", 1, 1)


def test_container_made_anew_keeps_its_name(trace: Any) -> None:
    """Each `docker run --name` gets an id of its own, and so a path of its own."""
    for number, identity in ((1, ID), (2, OTHER)):
        own = {"container": "web", "container_id": identity, "created": trace.ns(number)}
        trace.add("cgroups", cgroup_id=number, path=f"/docker/{identity}", **own)
        trace.add("cgroups", cgroup_id=10 + number, path=f"/docker/{identity}/init", **own)
    assert run_of(trace, 2) == ("web", 2, 2)
    assert run_of(trace, 12) == ("web/init", 2, 2)
    assert naming.select(trace, "web") == [1, 2]


def test_life_too_short_for_the_runtime_is_named_after_its_path(trace: Any) -> None:
    path = f"/docker/{ID}"
    trace.add("cgroups", cgroup_id=1, path=path, container_id=ID, created=trace.ns(1))
    trace.add("cgroups", cgroup_id=2, path=path, container="web", container_id=ID, created=trace.ns(2))
    assert [run_of(trace, number) for number in (1, 2)] == [("web", 1, 2), ("web", 2, 2)]
    assert naming.select(trace, "web") == [1, 2]


def test_containers_of_one_name_in_two_pods_have_two_names(trace: Any) -> None:
    for number, pod in ((1, "web-1"), (2, "web-2"), (3, "web-1")):
        own = {"container": "app", "pod": pod, "namespace": "shop", "created": trace.ns(number)}
        trace.add("cgroups", cgroup_id=number, path=f"/kubepods/{number}", **own)
    assert [run_of(trace, number) for number in (1, 2, 3)] == [("app", 1, 2), ("app", 1, 1), ("app", 2, 2)]
    assert naming.select(trace, "app") == [1, 3, 2]


def test_cgroup_below_a_reused_path_belongs_to_the_life_of_its_time(trace: Any) -> None:
    for number, path, made in ((1, "/a", 0), (2, "/a/b", 1), (3, "/a", 3), (4, "/a/b", 4), (5, "/", 0)):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(made))
    assert trace.places.descendants(1).tolist() == [1, 2]
    assert trace.places.descendants(3).tolist() == [3, 4]
    assert trace.places.descendants(5).tolist() == [1, 2, 3, 4, 5]
    below = naming.descendants_of(trace.cgroups, [1, 3, 5])
    assert {number: ids.tolist() for number, ids in below.items()} == {
        1: [1, 2],
        3: [3, 4],
        5: [1, 2, 3, 4, 5],
    }


def _crash_loop(trace: Any) -> None:
    """Make container `crasher` live at 0, 2 and 4 s for 1 s each; cache of life 1 is evicted at 2.5 s."""
    path = f"/docker/{ID}"
    for run in range(3):
        number, begin = 20 + run, 2.0 * run
        trace.add(
            "cgroups",
            cgroup_id=number,
            path=path,
            container="crasher",
            container_id=ID,
            created=trace.ns(begin),
            removed=trace.ns(begin + 1),
        )
        trace.charged(begin + 0.1, number, "anon", 4096 << run, usage_bytes=4096 << run, limit_bytes=48 << 20)
        evicted = 2.5 if run == 0 else begin + 0.5
        trace.add(
            "pagecache", evicted, cgroup_id=number, op="delete", cause="reclaim_memcg", nr_pages=1 << run
        )
        if run != 2:
            trace.add("oom", begin + 0.9, kill_id=run + 1, cgroup_id=number, limit_owner_cgroup_id=number)


def test_timeline_of_a_name_has_its_lives_in_order(trace: Any) -> None:
    _crash_loop(trace)
    line = timeline(trace, "crasher", every="500ms")
    assert line["run"].drop_duplicates().tolist() == [1, 2, 3]
    assert line["run"].is_monotonic_increasing
    assert set(line["container"]) == {"crasher"} and set(line["cgroup_id"]) == {20, 21, 22}
    assert not line.reset_index().duplicated(["time", "run"]).any()
    seconds = 0.1 + (line.index - line.index[0]).total_seconds()
    spans = {run: (of.min(), of.max()) for run, of in seconds.to_series().groupby(line["run"].to_numpy())}
    # Each from the bin of its creation; the first until its cache was evicted.
    assert spans == {
        1: pytest.approx((0.1, 2.1)),
        2: pytest.approx((1.6, 2.6)),
        3: pytest.approx((3.6, 4.1)),
    }
    assert line.groupby("run")["cache_evicted_bytes"].sum().tolist() == [4096, 8192, 16384]
    assert line["oom_kills"].sum() == 2
    one = timeline(trace, "crasher", every="500ms", run=2)
    assert set(one["run"]) == {2} and one["cache_evicted_bytes"].sum() == 8192


def test_evictions_of_a_name_sum_up_all_its_lives(trace: Any) -> None:
    _crash_loop(trace)
    trace.add("cgroups", cgroup_id=30, path="/other")
    trace.add("pagecache", 1, cgroup_id=30, op="delete", cause="reclaim_memcg", nr_pages=1 << 9)
    assert evictions(trace, "cause", "crasher")["evicted_bytes"].sum() == 7 * 4096
    by_cgroup = evictions(trace, "cgroup", "crasher").sort_values("run")
    assert by_cgroup["run"].tolist() == [1, 2, 3] and set(by_cgroup["runs"]) == {3}
    assert (by_cgroup["evicted_bytes"] // 4096).tolist() == [1, 2, 4]
    flow = cache_flow(trace, moves(trace, "crasher"), "crasher")
    assert (flow.cgroup, flow.runs, flow.evicted_bytes) == ("crasher", 3, 7 * 4096)


def test_lives_to_show_are_the_last_with_a_kill(trace: Any) -> None:
    _crash_loop(trace)
    assert to_show(trace) == ([21], 2)
    ids = naming.select(trace, "crasher")
    assert lives_to_show(trace, ids, most=1) == [21]
    assert lives_to_show(trace, ids, most=2) == [20, 21]
    assert lives_to_show(trace, ids) == ids
    assert lives_to_show(trace, ids, begin="3.5s", most=1) == [22]
