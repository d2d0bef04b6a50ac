"""The pods of a trace's kills: which kills count, whose they are, and the sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from synthetic.unset import unset_row

from tracer.schema import TABLES
from tracer.trace.write.writer import TraceWriter
from tracer.watch import killed_pods
from tracer.watch.completing import explained

BeginTrace = Callable[..., TraceWriter]

AT_NS = 1_764_000_001_000_000_000
SECOND_NS = 1_000_000_000
WEB, BANK = "0f9c4fb2-6a8a-4d4c-9a0e-3f8f6f1a2b3c", "d3b07384d113edec49eaa6238ad5ff00"
IDS = {name: name[0] * 64 for name in ("app", "bank", "cold")}
SLICE = f"/kubepods.slice/kubepods-pod{WEB.replace('-', '_')}.slice"
CGROUPS = {
    11: {"path": SLICE, "pod": "web-1", "namespace": "shop"},
    12: {"path": f"{SLICE}/cri-containerd-{IDS['app']}.scope", "container": "app"},
    13: {"path": f"/kubepods/pod{BANK}/{IDS['bank']}", "container": "db", "pod": "bank", "namespace": "b"},
    14: {"path": f"/kubepods/pod{BANK.replace('d3', 'e4')}/{IDS['cold']}"},
    15: {"path": "/system.slice/cron.service"},
    16: {"path": f"/user.slice/user-7.slice/user@7.service/kubepods/pod{BANK}/{IDS['bank']}"},
    17: {"path": f"{SLICE}/cri-containerd-{IDS['app']}.scope/kubepods/pod{BANK}/{IDS['bank']}"},
}


def kill(kill_id: int, cgroup_id: int, second: float, owner_id: int | None) -> dict[str, Any]:
    pid = 100 + kill_id
    return {
        "time": AT_NS + round(second * SECOND_NS),
        "ktime_ns": 777 + kill_id,
        "kill_id": kill_id,
        "constraint": "global" if owner_id is None else "memcg",
        "limit_owner_cgroup_id": owner_id,
        "trigger_pid": pid,
        "trigger_tgid": pid,
        "trigger_comm": "hungry",
        "trigger_cgroup_id": cgroup_id,
        "pid": pid,
        "tgid": pid,
        "comm": f"hungry-{kill_id}",
        "cgroup_id": cgroup_id,
        "anon_rss_bytes": 98 << 20,
    }


@pytest.fixture
def left_out() -> list[int | None]:
    """Return the numbers of containers that were left out."""
    return []


@pytest.fixture
def pods_since(
    begin_trace: BeginTrace, tmp_path: Path, left_out: list[int | None]
) -> Callable[..., list[dict[str, Any]] | None]:
    """Return `pods_since(second, *kills)`: the pods of a trace with these kills."""

    def pods_since(second: float | None, *kills: dict[str, Any]) -> list[dict[str, Any]] | None:
        writer = begin_trace(tmp_path / "trace", killed=False)
        cgroups = [{"cgroup_id": number, **row} for number, row in CGROUPS.items()]
        for table, rows in (("cgroups", cgroups), ("oom", kills)):
            complete = [unset_row(table) | row for row in rows]
            writer.append(table, pa.Table.from_pylist(complete, schema=TABLES[table]))
        writer.close("quiet")
        since_ns = None if second is None else AT_NS + round(second * SECOND_NS)
        found, defects = explained(tmp_path / "trace", pods_since_ns=since_ns)
        assert not defects
        pods: list[dict[str, Any]] | None = found.get("pods")
        left_out.append(found.get("pods_left_out"))
        return pods

    return pods_since


def test_kills_of_a_container_are_together_with_the_sentence_of_the_newest(pods_since: Any) -> None:
    [pod] = pods_since(0, kill(1, 12, 0, 12), kill(2, 12, 3, 12))
    assert pod.pop("sentence").startswith("hungry-2 (pid 102) asked for more memory and was killed")
    assert pod == {
        "uid": WEB,
        "pod": "web-1",
        "namespace": "shop",
        "container": "app",
        "kills": 2,
        "times_ns": [AT_NS, AT_NS + 3 * SECOND_NS],
    }


def test_victim_decides_which_pod_had_the_kill(pods_since: Any) -> None:
    """The limit may be that of the pod, or the machine's memory."""
    of_pod, of_machine = pods_since(0, kill(1, 12, 0, 11), kill(2, 13, 1, None))
    assert (of_pod["pod"], of_pod["container"]) == ("web-1", "app")
    assert (of_machine["uid"], of_machine["pod"], of_machine["namespace"]) == (BANK, "bank", "b")
    assert "machine" in of_machine["sentence"]


def test_kills_of_earlier_traces_are_left_out(pods_since: Any) -> None:
    [pod] = pods_since(2, kill(1, 13, 1, 13), kill(2, 12, 1.999, 12), kill(3, 12, 2, 12))
    assert (pod["container"], pod["times_ns"]) == ("app", [AT_NS + 2 * SECOND_NS])


def test_pod_without_a_name_is_reported_and_a_unit_is_not(pods_since: Any) -> None:
    [pod] = pods_since(0, kill(1, 14, 0, 14), kill(2, 15, 1, 15))
    assert (pod["pod"], pod["namespace"], pod["container"]) == (None, None, IDS["cold"])
    assert pod["uid"] == BANK.replace("d3", "e4")


def test_cgroup_that_a_user_named_like_a_pod_is_no_pod(pods_since: Any) -> None:
    assert pods_since(0, kill(1, 16, 0, 16)) == []


def test_cgroup_that_a_container_named_like_a_pod_counts_for_its_own_pod(pods_since: Any) -> None:
    """Else a container could give an Event to any pod of the node."""
    [pod] = pods_since(0, kill(1, 12, 0, 12), kill(2, 17, 1, 17))
    assert (pod["uid"], pod["pod"], pod["container"], pod["kills"]) == (WEB, "web-1", "app", 2)


def test_pods_are_not_looked_for_unless_asked(pods_since: Any) -> None:
    assert pods_since(None, kill(1, 12, 0, 12)) is None


def test_containers_and_times_are_bounded(
    pods_since: Any, left_out: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killed_pods, "MOST_CONTAINERS", 1)
    monkeypatch.setattr(killed_pods, "_MOST_TIMES", 2)
    monkeypatch.setattr(killed_pods, "_MOST_SENTENCE", 7)
    [pod] = pods_since(0, kill(1, 13, 0, 13), *(kill(number, 12, number, 12) for number in range(2, 7)))
    assert (pod["container"], pod["kills"], left_out) == ("app", 5, [1])
    assert [(one - AT_NS) / SECOND_NS for one in pod["times_ns"]] == [2, 5, 6]
    assert pod["sentence"] == "hungry-"


def test_containers_share_the_bound_of_times(pods_since: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the child is bounded: 200 containers with 1,000 kills each would exceed it."""
    monkeypatch.setattr(killed_pods, "_MOST_TIMES", 4)
    pods = pods_since(0, *(kill(number, 12 + number % 2, number, 12 + number % 2) for number in range(2, 12)))
    assert [len(pod["times_ns"]) for pod in pods] == [3, 3], "the first, and the newest two"
    assert [pod["kills"] for pod in pods] == [5, 5]
