"""A real Prometheus scrapes the endpoint, fires an alert at a kill, and answers what the dashboard asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from support.scraping.prometheus import WITHIN_S, Prometheus, dashboard_queries, prometheus
from support.scraping.serve_parts import Parts
from synthetic.live_rows import cgroup, rows

from tracer.serve.http_server import MetricsServer

TRACE = Path("/var/lib/memcg-tracer/20261127T000000Z-kill-web")


@pytest.fixture
def parts() -> Parts:
    return Parts(cgroup(1), cgroup(3, 1, path="/docker/4f", container_id="4f", container="web"))


def run_until(parts: Parts, condition: Callable[[], object]) -> None:
    """Have the container grow by 2 MiB a second, and all else go on, until a condition holds."""
    began_s = time.monotonic()
    while not condition():
        elapsed_s = time.monotonic() - began_s
        assert elapsed_s < WITHIN_S, f"Prometheus has not got there: {condition}"
        usage = min(20 + 2 * elapsed_s, 95)
        now = {"time": time.time_ns(), "workingset_refault_file": int(elapsed_s * 100), "swap_usage_bytes": 0}
        parts.sample(3, usage, 100, inactive_file_bytes=0, psi_some_total_us=int(elapsed_s * 1e5), **now)
        run = {"cgroup_id": 3, "task_cgroup_id": 3, "nr_pages": 5}
        added, deleted = {"op": "add", "cause": "read"}, {"op": "delete", "cause": "reclaim_memcg"}
        parts.tally.take("pagecache", rows("pagecache", run | added, run | deleted))
        attempt = {"cgroup_id": 3, "task_cgroup_id": 3, "kind": "memcg", "duration_ns": 10_000_000}
        parts.tally.take("reclaim", rows("reclaim", attempt))
        parts.tally.take("loss", rows("loss", {"stream": "charge", "lost": 1}))
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_prometheus_fires_at_a_kill_and_answers_every_query_of_the_dashboard(
    parts: Parts, tmp_path: Path
) -> None:
    with closing(MetricsServer("127.0.0.1", 0, parts.exposition.texts)) as server:
        server.start()
        with prometheus(tmp_path, server.port) as running:
            check(parts, running)


def check(parts: Parts, running: Prometheus) -> None:
    run_until(parts, lambda: running.values("memcg_tracer_usage_bytes > 0"))

    assert running.kill_alerts() == []
    parts.kills.kill({"kill_id": 1, "limit_owner_cgroup_id": 3, "cgroup_id": 3})
    parts.kills.explain([(1, "anon_growth")], TRACE)
    parts.kills.sigkill(rows("sigkills", {"cgroup_id": 3, "sender_comm": "earlyoom"}))

    run_until(parts, running.kill_alerts)
    (alert,) = running.kill_alerts()
    assert (alert["state"], alert["labels"]["name"]) == ("firing", "web")
    assert alert["annotations"]["summary"].startswith("1 OOM kill(s) in web on 127.0.0.1:")
    run_until(parts, lambda: running.values("memcg_tracer_seconds_to_kill < 60"))
    parts.kills.kill({"kill_id": 2, "limit_owner_cgroup_id": 3, "cgroup_id": 3})
    parts.kills.pod_event("sent", 1)
    parts.kills.explain([(2, "anon_growth")], TRACE)
    run_until(parts, lambda: running.values("memcg_tracer_oom_kills_total > 1"))
    for query in dashboard_queries():
        run_until(parts, partial(running.values, query))
    by_cgroup = [query for query in dashboard_queries() if "label_replace" in query]
    for query in by_cgroup:
        assert {one["metric"]["cgroup"] for one in running.values(query)} <= {
            "web",
            "/",
        }
    assert by_cgroup
    now_s = time.time()
    series = running.get(
        "query_exemplars", query="memcg_tracer_oom_kills_total", start=now_s - WITHIN_S, end=now_s
    )
    assert series[0]["exemplars"][-1]["labels"] == {"trace": TRACE.name}
