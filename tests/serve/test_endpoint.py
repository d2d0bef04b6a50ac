"""The endpoint on this kernel: its numbers are the kernel's own, and kills outlive their cgroups."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric, parser
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.memcg_files import read_columns
from support.recorder import WITHIN_S
from support.scraping.prometheus import dashboard_queries, prometheus
from support.scraping.serve_parts import Parts
from support.settled import settle
from support.watcher import Watcher
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.sample_series import START_NS
from workloads import killed_work

from tracer.categories import PARTS
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached
from tracer.metric_families import FAMILIES
from tracer.render.words.escape import visible
from tracer.schema import MEMORY_STAT_BYTES
from tracer.serve import endpoint
from tracer.serve.endpoint import Exposition

TRACE = Path("/var/lib/memcg-tracer/20261127T000000Z-kill-web")
HOSTILE = '/docker/"} 1\n# EOF\n\\x\x1b[31m\u202e'


OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TEXT = "text/plain; version=0.0.4"


def families(text: str) -> list[Metric]:
    """Return the families of a text of OpenMetrics."""
    return [*text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]


class Scraped(Parts):
    """What a scrape of the parts gives."""

    def text(self, accept: str = OPEN_METRICS) -> str:
        return "".join(self.exposition.texts(*choose_encoder(accept)))

    def samples(self) -> list[Sample]:
        """Return the samples without the prefix of their names, as the official parser reads them."""
        return [
            sample._replace(name=sample.name.removeprefix("memcg_tracer_"))
            for family in families(self.text())
            for sample in family.samples
        ]

    def values(self, name: str) -> dict[str, float]:
        """Return the last label -> value."""
        return {
            sample.labels.get("kind")
            or sample.labels.get("cause")
            or sample.labels.get("id", ""): sample.value
            for sample in self.samples()
            if sample.name == name
        }


def test_families_are_those_of_the_table() -> None:
    found = families(Scraped(cgroup(1)).text())
    assert [(one.name, one.type, one.unit, one.documentation) for one in found] == [
        (family.full_name, family.kind, family.unit, family.help) for family in FAMILIES
    ]


def test_cgroup_has_its_numbers_under_its_labels() -> None:
    parts = Scraped(cgroup(1), cgroup(3, 1, path="/docker/4f", container_id="4f", container="web"))
    parts.sample(3, 7, 10, workingset_refault_file=2, psi_full_total_us=1_500_000)
    run = {"cgroup_id": 3, "op": "delete", "cause": "reclaim_memcg", "nr_pages": 5}
    parts.tally.take("pagecache", rows("pagecache", run))
    labels = {"id": "/docker/4f", "name": "web", "namespace": "", "pod": "", "container": ""}
    (usage,) = [one for one in parts.samples() if one.name == "usage_bytes"]
    assert (usage.labels, usage.value) == (labels, 7 * MIB)
    assert parts.values("limit_bytes") == {"/docker/4f": 10 * MIB}
    assert parts.values("cushion_bytes") == {"/docker/4f": 3 * MIB}
    assert parts.values("refaulted_bytes_total") == {"/docker/4f": 8192}
    assert parts.values("pagecache_evicted_bytes_total")["reclaim_memcg"] == 20480
    assert parts.values("pressure_seconds_total") == {"full": 1.5}
    assert sum(parts.values("memory_bytes").values()) == 7 * MIB


def test_what_is_not_known_has_no_series() -> None:
    parts = Scraped(cgroup(1))
    parts.sample(1, 7)
    for name in ("limit_bytes", "cushion_bytes", "seconds_to_kill", "pressure_seconds_total"):
        assert parts.values(name) == {}


def test_kill_outlives_its_cgroup_and_its_exemplar_names_the_trace() -> None:
    parts = Scraped(cgroup(1), cgroup(3, 1, container="web", container_id="4f"))
    parts.kills.kill({"kill_id": 1, "limit_owner_cgroup_id": 3, "cgroup_id": 3})
    parts.tally.take("cgroups", rows("cgroups", cgroup(3, 1, removed=START_NS)))
    parts.kills.explain([(1, "anon_growth")], TRACE)
    (kill,) = [one for one in parts.samples() if one.name == "oom_kills_total"]
    assert kill.labels == {"name": "web", "namespace": "", "pod": "", "container": "", "cause": "anon_growth"}
    assert (kill.value, kill.exemplar and kill.exemplar.labels) == (1, {"trace": TRACE.name})


def test_sigkills_have_the_name_of_the_sender_escaped() -> None:
    parts = Scraped(cgroup(1), cgroup(3, 1, container="web", container_id="4f"))
    parts.kills.sigkill(rows("sigkills", {"cgroup_id": 3, "sender_comm": "ru\nc"}))
    (kill,) = [one for one in parts.samples() if one.name == "sigkills_total"]
    labels = {"name": "web", "namespace": "", "pod": "", "container": "", "sender": "ru\\nc"}
    assert (kill.labels, kill.value) == (labels, 1)


def test_events_of_pods_have_their_result() -> None:
    parts = Scraped(cgroup(1))
    parts.kills.pod_event("sent", 2)
    (events,) = [one for one in parts.samples() if one.name == "pod_events_total"]
    assert (events.labels, events.value) == ({"result": "sent"}, 2)


def filled(most_series: int) -> Scraped:
    """Return a container, a cgroup with a limit, and four others."""
    parts = Scraped(
        *(cgroup(number) for number in range(1, 6)), cgroup(6, container_id="4f"), most_series=most_series
    )
    for number in range(1, 6):
        parts.sample(number, 10 * number, 100 if number == 2 else None)
    parts.sample(6, 1)
    return parts


def test_most_important_cgroups_have_all_series_and_the_others_their_usage() -> None:
    series = Counter(one.labels["id"] for one in filled(1000).samples() if "id" in one.labels)
    whole = series["/6"] + series["/2"]
    parts = filled(whole + 4)
    assert set(parts.values("usage_bytes")) == {f"/{number}" for number in range(1, 7)}
    found = Counter(one.labels["id"] for one in parts.samples() if "id" in one.labels)
    assert found == {"/6": series["/6"], "/2": series["/2"], **dict.fromkeys(("/1", "/3", "/4", "/5"), 1)}
    assert parts.values("cgroups_left_out") == {"": 4}
    parts = filled(whole + 3)  # the limit of /2 has no room
    assert parts.values("limit_bytes") == {}
    assert parts.values("cgroups_left_out") == {"": 5}


def test_largest_comes_first_among_the_others() -> None:
    series = Counter(one.labels["id"] for one in filled(1000).samples() if "id" in one.labels)
    parts = filled(series["/6"] + series["/2"] + series["/5"] + 3)
    found = Counter(one.labels["id"] for one in parts.samples() if "id" in one.labels)
    assert found["/5"] == series["/5"]
    assert found["/4"] == 1


def test_usage_alone_is_that_of_the_latest_sample() -> None:
    parts = filled(4)
    before = parts.values("usage_bytes")
    number = max(before).removeprefix("/")
    parts.sample(int(number), 49)
    assert parts.values("usage_bytes") == before | {f"/{number}": 49 * MIB}
    assert parts.values("cgroups_left_out") == {"": 6}


@pytest.mark.parametrize("most", [1, 2, 5, 9, 40])
def test_series_are_at_most_the_given_number(most: int) -> None:
    assert sum("id" in one.labels for one in filled(most).samples()) <= most


def test_path_that_two_lives_have_is_shown_once() -> None:
    parts = Scraped(cgroup(1, path="/work"), cgroup(2, path="/work"))
    parts.sample(1, 5)
    parts.sample(2, 6, time=START_NS + 1)
    assert parts.values("usage_bytes") == {"/work": 6 * MIB}


@given(name=st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_name_is_one_label(name: str) -> None:
    parts = Scraped(cgroup(1, path=f"/{name}".encode(errors="backslashreplace").decode()))
    parts.sample(1, 5)
    (usage,) = [one for one in parts.samples() if one.name == "usage_bytes"]
    assert usage.labels["id"].isprintable() or usage.labels["id"] == visible(usage.labels["id"])


@pytest.mark.parametrize("column", ["path", "container"])
def test_hostile_name_adds_no_line(column: str) -> None:
    parts = Scraped(cgroup(1) | {column: HOSTILE, "container_id": "4f"})
    parts.sample(1, 5)
    text = parts.text()
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("# EOF") - text.count(r"\n# EOF") == 1
    assert len(parts.values("usage_bytes")) == 1


def test_losses_are_exported_by_stream() -> None:
    parts = Scraped(cgroup(1))
    parts.tally.take("loss", rows("loss", {"stream": "charge", "lost": 7}))
    (lost,) = [one for one in parts.samples() if one.name == "lost_records_total"]
    assert (lost.labels, lost.value) == ({"stream": "charge"}, 7)


class Families:
    """Families for a writer of prometheus_client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def written_by_the_library(text: str, accept: str) -> str:
    """Return the families of a text as the library writes them."""
    read = families(text) if accept == OPEN_METRICS else [*parser.text_string_to_metric_families(text)]
    return choose_encoder(accept)[0](Families(read)).decode()


HOSTILE_NAMES = st.sampled_from([HOSTILE, "%s%d", "a\\x2db.service", "ü\\n", "/x", "/y"])
SIZES = st.one_of(st.none(), st.integers(0, 1 << 44))


@st.composite
def cgroups(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw rows of `cgroups`: paths may occur twice, and containers have names."""
    container = {"container_id": "4f" * 32, "container": draw(HOSTILE_NAMES), "pod": draw(HOSTILE_NAMES)}
    return [
        cgroup(number, number // 2 or None, path=draw(HOSTILE_NAMES)) | (container if number % 3 == 0 else {})
        for number in range(1, draw(st.integers(2, 9)))
    ]


@st.composite
def samples(draw: st.DrawFn, number: int) -> dict[str, Any]:
    limit = draw(SIZES)
    sizes = {
        f"{name}_bytes": draw(SIZES) for name in draw(st.sets(st.sampled_from(sorted(MEMORY_STAT_BYTES))))
    }
    levels = {"usage_bytes": draw(SIZES), "limit_bytes": limit, "effective_limit_bytes": limit}
    pressure = {"psi_some_total_us": draw(SIZES), "workingset_refault_file": draw(st.integers(0, 9))}
    time_ns = START_NS + draw(st.integers(0, 5))
    of_kind = {"cgroup_id": number, "source": "periodic", "time": time_ns}
    return of_kind | sizes | levels | pressure


@given(data=st.data(), named=cgroups(), most=st.sampled_from([1, 4, 9, 40, 90, 1000]))
def test_text_after_any_changes_is_that_of_a_first_scrape_and_of_the_library(
    data: st.DataObject, named: list[dict[str, Any]], most: int
) -> None:
    parts = Scraped(*named, most_series=most)
    for number in range(4):
        one = data.draw(st.sampled_from(named))
        change = data.draw(st.sampled_from(["samples", "renamed", "removed", "killed"]))
        if change == "renamed":
            parts.tally.take("cgroups", rows("cgroups", one | {"path": data.draw(HOSTILE_NAMES)}))
        elif change == "removed":
            parts.tally.take("cgroups", rows("cgroups", one | {"removed": START_NS}))
        elif change == "killed":
            parts.kills.kill({"kill_id": number + 1, "limit_owner_cgroup_id": one["cgroup_id"]})
            parts.kills.explain([(number + 1, "anon_growth")], None)
        else:
            ids = data.draw(st.sets(st.sampled_from([one["cgroup_id"] for one in named]), min_size=1))
            given = [data.draw(samples(one)) for one in sorted(ids)]
            parts.tally.take("samples", rows("samples", *given))
        accept = data.draw(st.sampled_from([OPEN_METRICS, TEXT]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(endpoint, "_cpu_s", lambda: 0.5)
            text = parts.text(accept)
            first = Exposition(parts.tally, parts.kills, most)
            assert text == "".join(first.texts(*choose_encoder(accept)))
        assert text == written_by_the_library(text, accept)


def test_names_are_escaped_as_the_client_asks() -> None:
    parts = Scraped(cgroup(1))
    parts.sample(1, 5)
    dots = OPEN_METRICS + "; escaping=dots"
    assert "\nmemcg__tracer__usage__bytes{" in parts.text(dots)
    assert "\nmemcg_tracer_usage_bytes{" in parts.text()


def test_many_formats_are_not_all_remembered() -> None:
    parts = Scraped(cgroup(1))
    for version in range(50):
        assert parts.text(f"application/openmetrics-text; version=1.0.{version}").endswith("# EOF\n")
    assert len(parts.exposition._templates) < 10


LIMIT_BYTES: Final = 48 << 20
FILE_BYTES: Final = (7 << 20) + 3 * 4096
ANON_BYTES: Final = 13 << 20
SHMEM_BYTES: Final = 3 << 20
MOST_RESIDENT_BYTES: Final = 120 << 20
MANY: Final = 1203


class ServingRecorder:
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

    def all_samples(self) -> list[Sample]:
        """Return the samples of one scrape."""
        return [sample for family in self.families() for sample in family.samples]

    def samples(self, metric: str, /, **labels: str) -> list[Sample]:
        """Return the samples of this name, without its prefix, with these labels."""
        return [
            sample
            for sample in self.all_samples()
            if sample.name == f"memcg_tracer_{metric}" and labels.items() <= sample.labels.items()
        ]

    def value(self, metric: str, /, **labels: str) -> float:
        """Return the sum of such samples."""
        return sum(sample.value for sample in self.samples(metric, **labels))


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Callable[..., ServingRecorder]]:
    started: list[Watcher] = []

    def start(*options: str, is_soon_quiet: bool = True) -> ServingRecorder:
        watcher = Watcher(tmp_path, "--serve", "127.0.0.1:0", *options, is_soon_quiet=is_soon_quiet)
        started.append(watcher)
        return ServingRecorder(watcher.wait_until_ready())

    yield start
    for watcher in started:
        watcher.kill()


def path_of(memcg: Path) -> str:
    return f"/{memcg.relative_to(memory_hierarchy().mount)}"


def kill_in(memcg: Path, folder: Path) -> None:
    record = folder / "kills"
    record.write_bytes(bytes(24))
    subprocess.run([sys.executable, killed_work.__file__, str(memcg), str(record)], check=True)


@pytest.mark.kernel
@pytest.mark.timeout(240)
@pytest.mark.beside
def test_numbers_are_those_of_memory_stat(
    memcg: Path, disk_dir: Path, scraped: Callable[..., ServingRecorder], start_workload: Callable[..., Any]
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
    parts: dict[str, float] = {}

    def has_the_kernels() -> bool:
        """Return whether a scrape has the usage and the kinds of the kernel, whose numbers were the same
        before and after it: kswapd may evict cache from every cgroup. Kinds that were read while memory.stat
        and usage did not agree are made to fit, until the next sample."""
        now = read_columns(memcg, memory_hierarchy().version)
        ours = [one for one in endpoint.all_samples() if one.labels.get("id") == path]
        usage = {one.value for one in ours if one.name == "memcg_tracer_usage_bytes"}
        parts.clear()
        of_kinds = [one for one in ours if one.name == "memcg_tracer_memory_bytes"]
        parts.update((one.labels["kind"], one.value) for one in of_kinds)
        assert not usage or {sum(parts.values())} == usage
        cache = sum(parts.get(kind, 0) for kind in ("file_clean", "file_dirty", "writeback", "shmem"))
        return (
            usage == {now["usage_bytes"]}
            and parts.get("anon") == now["anon_bytes"]
            and cache == now["file_bytes"]
            and now == read_columns(memcg, memory_hierarchy().version)
        )

    endpoint.watcher.wait_for(has_the_kernels)
    assert parts["shmem"] == SHMEM_BYTES
    assert set(parts) <= {part.name for part in PARTS}
    assert endpoint.value("pagecache_added_bytes_total", id=path) >= FILE_BYTES
    added = {
        cause: endpoint.value("pagecache_added_bytes_total", id=path, cause=cause)
        for cause in ("read", "readahead")
    }
    assert sum(added.values()) >= FILE_BYTES
    assert endpoint.samples("limit_bytes", id=path) == []
    assert endpoint.value("lost_records_total", stream="pagecache") == 0
    endpoint.watcher.stop()


@pytest.mark.kernel
@pytest.mark.timeout(240)
@pytest.mark.beside
def test_all_of_many_cgroups_are_there_from_the_start(
    memcg: Path, scraped: Callable[..., ServingRecorder]
) -> None:
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


@pytest.mark.kernel
@pytest.mark.timeout(240)
def test_kill_is_counted_at_once_then_by_cause_and_outlives_its_cgroup(
    tmp_path: Path, scraped: Callable[..., ServingRecorder]
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


@pytest.mark.kernel
@pytest.mark.timeout(240)
def test_cause_of_each_kill_is_counted_and_printed_while_the_kills_go_on(
    tmp_path: Path, scraped: Callable[..., ServingRecorder], monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.kernel
@pytest.mark.timeout(240)
def test_prometheus_fires_at_a_real_kill_and_answers_the_dashboard(
    tmp_path: Path, scraped: Callable[..., ServingRecorder]
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


@pytest.mark.kernel
@pytest.mark.timeout(240)
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
