"""The endpoint on this kernel: its numbers are the kernel's own, and kills outlive their cgroups."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.memcg_files import read_columns
from support.recorder import WITHIN_S
from support.scraping.prometheus import dashboard_queries, prometheus
from support.settled import settle
from support.watcher import Watcher
from workloads import killed_work

from tracer.categories import PARTS
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

LIMIT_BYTES: Final = 48 << 20
FILE_BYTES: Final = (7 << 20) + 3 * 4096
ANON_BYTES: Final = 13 << 20
SHMEM_BYTES: Final = 3 << 20
MOST_RESIDENT_BYTES: Final = 120 << 20
MANY: Final = 1203


class Scraped:
    """A recorder that serves, and its metrics."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        watcher.wait_for(lambda: "metrics at " in watcher.stderr)
        (self.url,) = re.findall(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", watcher.stderr)
        self.port = int(self.url.split(":")[2].partition("/")[0])

    def families(self) -> list[Metric]:
        request = urllib.request.Request(self.url, headers={"Accept": "application/openmetrics-text"})
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return [*text_string_to_metric_families(answer.read().decode())]  # type: ignore[no-untyped-call]

    def samples(self, metric: str, /, **labels: str) -> list[Sample]:
        """Return the samples of this name, without its prefix, with these labels."""
        return [
            sample
            for family in self.families()
            for sample in family.samples
            if sample.name == f"memcg_tracer_{metric}" and labels.items() <= sample.labels.items()
        ]

    def value(self, metric: str, /, **labels: str) -> float:
        """Return the sum of such samples."""
        return sum(sample.value for sample in self.samples(metric, **labels))


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Callable[..., Scraped]]:
    started: list[Watcher] = []

    def start(*options: str, is_soon_quiet: bool = True) -> Scraped:
        watcher = Watcher(tmp_path, "--serve", "127.0.0.1:0", *options, is_soon_quiet=is_soon_quiet)
        started.append(watcher)
        return Scraped(watcher.wait_until_ready())

    yield start
    for watcher in started:
        watcher.kill()


def path_of(memcg: Path) -> str:
    return f"/{memcg.relative_to(memory_hierarchy().mount)}"


def kill_in(memcg: Path, folder: Path) -> None:
    record = folder / "kills"
    record.write_bytes(bytes(24))
    subprocess.run([sys.executable, killed_work.__file__, str(memcg), str(record)], check=True)


@pytest.mark.beside
def test_numbers_are_those_of_memory_stat(
    memcg: Path, disk_dir: Path, scraped: Callable[..., Scraped], start_workload: Callable[..., Any]
) -> None:
    write_uncached(disk_dir / "file", FILE_BYTES)
    endpoint, path = scraped("-c", str(memcg)), path_of(memcg)
    steps = (
        "anon",
        str(ANON_BYTES),
        "then",
        "shmem",
        str(SHMEM_BYTES),
        "then",
        "read",
        str(disk_dir / "file"),
    )
    work = start_workload(memcg, *steps)
    assert [work.advance() for _ in range(4)][-1] == "done read"
    settle(memcg)
    now = read_columns(memcg, memory_hierarchy().version)

    def served() -> dict[str, float]:
        return {one.labels["kind"]: one.value for one in endpoint.samples("memory_bytes", id=path)}

    endpoint.watcher.wait_for(lambda: endpoint.value("usage_bytes", id=path) == now["usage_bytes"])
    parts = served()
    assert parts["anon"] == now["anon_bytes"]
    assert parts["shmem"] == now["shmem_bytes"] == SHMEM_BYTES
    assert sum(parts.values()) == now["usage_bytes"]
    assert set(parts) <= {part.name for part in PARTS}
    file, shmem = now["file_bytes"], now["shmem_bytes"]
    assert file is not None and shmem is not None
    assert parts["file_clean"] + parts["file_dirty"] + parts["writeback"] == file - shmem
    assert endpoint.value("pagecache_added_bytes_total", id=path) >= FILE_BYTES
    added = {
        cause: endpoint.value("pagecache_added_bytes_total", id=path, cause=cause)
        for cause in ("read", "readahead")
    }
    assert sum(added.values()) >= FILE_BYTES
    assert endpoint.samples("limit_bytes", id=path) == []
    assert endpoint.value("lost_records_total", stream="pagecache") == 0
    endpoint.watcher.stop()


@pytest.mark.beside
def test_all_of_many_cgroups_are_there_from_the_start(memcg: Path, scraped: Callable[..., Scraped]) -> None:
    """Their names come before their samples: more than a thousand samples without a name would be dropped."""
    made = [memcg / f"c{number}" for number in range(MANY)]
    try:
        for one in made:
            one.mkdir()
        endpoint = scraped("-c", str(memcg))
        assert len(endpoint.samples("usage_bytes")) == 1 + MANY
        assert endpoint.value("cgroups_left_out") > 0  # they have more series than --max-series
        endpoint.watcher.stop()
    finally:
        for one in made:
            one.rmdir()


def test_kill_is_counted_at_once_then_by_cause_and_outlives_its_cgroup(
    tmp_path: Path, scraped: Callable[..., Scraped]
) -> None:
    with ephemeral_cgroup("served", LIMIT_BYTES, 0) as limited:
        path = path_of(limited)
        endpoint = scraped("-c", str(limited))
        assert endpoint.value("limit_bytes", id=path) == LIMIT_BYTES
        assert endpoint.samples("oom_kills_seen_total") == []
        kill_in(limited, tmp_path)
        endpoint.watcher.wait_for(lambda: endpoint.value("oom_kills_seen_total", name=path) == 1)
        assert endpoint.value("reclaim_attempts_total", id=path) > 0
    endpoint.watcher.wait_for(lambda: endpoint.samples("usage_bytes", id=path) == [])
    endpoint.watcher.wait_for(lambda: endpoint.samples("oom_kills_total", name=path))
    (kill,) = endpoint.samples("oom_kills_total", name=path)
    (trace,) = endpoint.watcher.traces
    assert (kill.labels["cause"], kill.value) == ("anon_growth", 1)
    assert kill.exemplar is not None
    assert kill.exemplar.labels == {"trace": trace.name}
    endpoint.watcher.stop()


def test_cause_of_each_kill_is_counted_and_printed_while_the_kills_go_on(
    tmp_path: Path, scraped: Callable[..., Scraped], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their trace grows as long as that, and is explained after it."""
    with ephemeral_cgroup("served", LIMIT_BYTES, 0) as limited:
        path = path_of(limited)
        endpoint = scraped("-c", str(limited), "--json", is_soon_quiet=False)
        watcher, record = endpoint.watcher, (tmp_path / "kills")
        for number in (1, 2):
            kill_in(limited, tmp_path)
            watcher.wait_for(lambda number=number: len(watcher.kills) == number)  # type: ignore[misc]
            counted = partial(endpoint.value, "oom_kills_total", name=path, cause="anon_growth")
            watcher.wait_for(lambda number=number, counted=counted: counted() == number)  # type: ignore[misc]
        killed = record.read_bytes()[:8]
        last = watcher.kills[-1]
        assert (last["cgroup"], last["cause"], last["limit_bytes"]) == (path, "anon_growth", LIMIT_BYTES)
        assert last["victim"]["pid"] == int.from_bytes(killed, sys.byteorder)
        assert "asked for more memory and was killed" in last["summary"]
    endpoint.watcher.stop()


def test_prometheus_fires_at_a_real_kill_and_answers_the_dashboard(
    tmp_path: Path, scraped: Callable[..., Scraped]
) -> None:
    with ephemeral_cgroup("served", LIMIT_BYTES, 0) as limited:
        endpoint = scraped("-c", str(limited))
        wait = endpoint.watcher.wait_for
        with prometheus(tmp_path, endpoint.port) as running:
            wait(lambda: running.values("memcg_tracer_limit_bytes"))
            kill_in(limited, tmp_path)
            wait(running.kill_alerts)
            (alert,) = running.kill_alerts()
            assert (alert["state"], alert["labels"]["name"]) == ("firing", path_of(limited))
            wait(lambda: running.values("memcg_tracer_oom_kills_total"))
            for query in dashboard_queries():
                assert running.get("query", query=query)["resultType"] == "vector"
            levels = ("memcg_tracer_usage_bytes", "memcg_tracer_limit_bytes", "sum by (kind)")
            queries = [query.replace("label_replace(", "") for query in dashboard_queries()]
            of_levels = [query.startswith(levels) for query in queries]
            assert sum(of_levels) == len(levels)
            for query in compress(dashboard_queries(), of_levels):
                wait(partial(running.values, query))
    endpoint.watcher.stop()


@pytest.mark.beside
def test_serve_keeps_its_memory_and_leaves_no_file(tmp_path: Path, memcg: Path) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracer", "serve", "--listen", "127.0.0.1:0", "-c", str(memcg)],
            stderr=stderr,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        )
    try:
        deadline_s = time.monotonic() + WITHIN_S
        while "metrics at" not in (tmp_path / "stderr").read_text():
            assert time.monotonic() < deadline_s and process.poll() is None
            time.sleep(0.01)
        (url,) = re.findall(r"metrics at (\S+)", (tmp_path / "stderr").read_text())
        for _ in range(20):
            with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
                assert b"memcg_tracer_usage_bytes" in answer.read()
        status = Path(f"/proc/{process.pid}/status").read_text()
        (resident_kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        assert int(resident_kib) << 10 < MOST_RESIDENT_BYTES
        assert list(tmp_path.glob("memcg-tracer-serve-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.glob("memcg-tracer-serve-*")) == []
