"""Kills are counted at once, by cause once, and under labels that outlive their cgroups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from synthetic.live_rows import cgroup, rows

from tracer.capture.observer import Sigkilled
from tracer.live.tally import Names
from tracer.serve.endpoint import Endpoint
from tracer.serve.kill_counters import KillCounters

WEB = ("web", "", "", "")
NAMES = {
    3: Names("/docker/4f", 1, False, container_id="4f", container="web"),
    4: Names("/docker/4f/inside", 3, False),
}
TRACE = Path("/var/lib/memcg-tracer/20261127T000000Z-kill-web")


def row(kill_id: int, owner: int | None = 3, victim: int = 4) -> dict[str, Any]:
    return {"kill_id": kill_id, "limit_owner_cgroup_id": owner, "cgroup_id": victim}


def counted(counters: KillCounters) -> dict[tuple[str, str], int]:
    return {(labels[0], cause): one.kills for (labels, cause), one in counters.explained().items()}


def test_kill_is_counted_at_once_and_by_cause_when_that_comes() -> None:
    counters = KillCounters(NAMES.get, 10)
    counters.kill(row(1))
    assert (counters.seen(), counted(counters)) == ({WEB: 1}, {})
    counters.explain([(1, "anon_growth")], TRACE)
    (one,) = counters.explained().values()
    assert (one.kills, one.trace) == (1, TRACE)
    counters.give_up()
    assert counted(counters) == {("web", "anon_growth"): 1}


def test_tasks_of_a_group_kill_are_one_kill() -> None:
    counters = KillCounters(NAMES.get, 10)
    for _ in range(3):
        counters.kill(row(1))
    counters.explain([(1, "shmem")], None)
    counters.kill(row(1))
    assert counters.seen() == {WEB: 1}


def test_kill_that_two_traces_contain_is_counted_once() -> None:
    counters = KillCounters(NAMES.get, 10)
    counters.kill(row(1))
    counters.explain([(1, "shmem")], TRACE)
    counters.kill(row(2))
    counters.explain([(1, "anon_growth"), (2, "anon_growth"), (9, "anon_growth")], TRACE)
    assert counted(counters) == {("web", "shmem"): 1, ("web", "anon_growth"): 1}


def test_kill_of_the_whole_machine_counts_for_the_victim() -> None:
    counters = KillCounters(NAMES.get, 10)
    counters.kill(row(1, owner=None, victim=4))
    assert counters.seen() == {("/docker/4f/inside", "", "", ""): 1}


def test_kill_that_nothing_will_explain_becomes_unknown() -> None:
    counters = KillCounters(NAMES.get, 10)
    for number in (1, 2):
        counters.kill(row(number))
    counters.explain([(2, "shmem")], TRACE)
    counters.give_up()
    assert counted(counters) == {("web", "unknown"): 1, ("web", "shmem"): 1}
    counters.explain([(1, "shmem")], TRACE)
    assert counted(counters) == {("web", "unknown"): 1, ("web", "shmem"): 1}


def test_endpoint_gives_up_when_the_kills_are_settled() -> None:
    endpoint = Endpoint("127.0.0.1", 0, most_series=100, keeps_traces=True)
    try:
        endpoint.count_kill(row(1))
        endpoint.guest().settled()
        assert [cause for _, cause in endpoint._kills.explained()] == ["unknown"]
    finally:
        endpoint.close()


def test_ten_thousand_kills_wait_for_their_causes() -> None:
    counters = KillCounters(NAMES.get, 10)
    for number in range(1, 10_001):
        counters.kill(row(number))
    assert counted(counters) == {}
    counters.explain([(number, "shmem") for number in range(1, 10_001)], TRACE)
    assert counted(counters) == {("web", "shmem"): 10_000}


def test_labels_beyond_the_most_are_empty_and_the_sum_stays() -> None:
    names = {number: Names(f"/{number}", 1, False) for number in range(1, 6)}
    counters = KillCounters(names.get, 2)
    for number in (1, 2, 3, 4, 1, 99):
        counters.kill(row(len(counters.explained()) + sum(counters.seen().values()) + 1, owner=number))
    assert counters.seen() == {("/1", "", "", ""): 2, ("/2", "", "", ""): 1, ("", "", "", ""): 3}


def test_sigkills_are_counted_by_sender_within_a_bound() -> None:
    counters = KillCounters(NAMES.get, 2)
    senders = ((3, "runc"), (3, "runc"), (3, None), (4, "earlyoom"), (99, "x"))
    for new in (senders, 40 * [(3, "runc")]):
        counters.sigkill(rows("sigkills", *({"cgroup_id": at, "sender_comm": comm} for at, comm in new)))
    assert counters.sigkills() == {(WEB, "runc"): 42, (WEB, ""): 1, (("", "", "", ""), ""): 2}
    assert counters.seen() == {}


def test_sigkills_are_counted_when_their_rows_come_and_not_by_the_lines_on_them() -> None:
    """A line on further SIGKILLs of a sender comes up to ten seconds later."""
    endpoint = Endpoint("127.0.0.1", 0, most_series=100, keeps_traces=True)
    try:
        lines = list[object]()
        reporter = cast(Any, SimpleNamespace(alarmed=None, notice=None, warn=None, sigkilled=lines.append))
        one = {"cgroup_id": 3, "sender_comm": "timeout"}
        endpoint.guest().follow("cgroups", rows("cgroups", cgroup(3, 1, container="web", container_id="4f")))
        for count in (1, 4):
            endpoint.guest().follow("sigkills", rows("sigkills", *[one] * count))
        endpoint.reporter(reporter).sigkilled([Sigkilled(one, "web", 4)])
        assert endpoint._kills.sigkills() == {(WEB, "timeout"): 5}
        assert len(lines) == 1
    finally:
        endpoint.close()


def test_events_of_pods_are_counted_by_their_result() -> None:
    counters = KillCounters(NAMES.get, 10)
    for result, count in (("sent", 1), ("dropped", 3), ("sent", 2)):
        counters.pod_event(result, count)
    assert counters.events_of_pods() == {"sent": 3, "dropped": 3}
