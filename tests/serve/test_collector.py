"""The families of a moment, read back by the official parser of OpenMetrics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.scraping.serve_parts import Parts
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.sample_series import START_NS

from tracer.metric_families import FAMILIES
from tracer.render.words.escape import visible

TRACE = Path("/var/lib/memcg-tracer/20261127T000000Z-kill-web")
HOSTILE = '/docker/"} 1\n# EOF\n\\x\x1b[31m\u202e'


def families(text: str) -> list[Metric]:
    """Return the families of a text of OpenMetrics."""
    return [*text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]


class Scraped(Parts):
    """What a scrape of the parts gives."""

    def text(self) -> str:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.collector)
        text: str = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
        return text

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
