"""OpenMetrics with timestamps, read by the official parser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.recorded import NAMES as RECORDED
from support.recorded import TRACES, opened

from tracer.analysis.replay import moments
from tracer.analysis.trace import AnalysedTrace
from tracer.cli.verbs.export import FORMATS, FileFormat
from tracer.live.now import CgroupNow
from tracer.metric_families import FAMILIES, KILL_LABELS
from tracer.render.export.openmetrics_text import NEED_CUSHIONS, Event, families
from tracer.render.words.escape import visible

S = 1_000_000_000
NOBODY = ("",) * len(KILL_LABELS)


def parsed(text: str) -> dict[str, Any]:
    found = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {family.name: family for family in found}


def exported(name: str) -> str:
    form = FORMATS["openmetrics"]
    assert isinstance(form, FileFormat)
    return "".join(str(piece) for piece in form.pieces(opened(name), None, None))


@pytest.fixture(scope="module")
def cgroup() -> CgroupNow:
    *_, (_, cgroups) = moments(opened("page-cache"), "1s")
    return cgroups[0]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_traces_are_accepted_by_the_official_parser(name: str) -> None:
    """It refuses series that come twice, times that go back, and names that break a rule."""
    found, known = parsed(exported(name)), {family.full_name: family for family in FAMILIES}
    assert {"memcg_tracer_usage_bytes", "memcg_tracer_reclaim_attempts"} <= found.keys() <= known.keys()
    for family_name, family in found.items():
        assert (family.type, family.unit) == (known[family_name].kind, known[family_name].unit)
        assert all(set(one.labels) == set(known[family_name].labels) for one in family.samples)
        assert all(one.timestamp is not None for one in family.samples)
    if (TRACES / name / "meta.json").read_text().count('"swap_total_bytes": 0') == 0:
        assert not {f"memcg_tracer_{one}" for one in NEED_CUSHIONS} & found.keys()


def test_kinds_of_memory_add_up_to_usage_at_each_time() -> None:
    found = parsed(exported("page-cache"))
    usage = {float(one.timestamp): one.value for one in found["memcg_tracer_usage_bytes"].samples}
    kinds = dict.fromkeys(usage, 0.0)
    for one in found["memcg_tracer_memory_bytes"].samples:
        kinds[float(one.timestamp)] += one.value
    assert len(usage) == 16
    assert kinds == usage


def test_kill_is_counted_from_its_time_on_with_the_trace_as_an_exemplar() -> None:
    trace = AnalysedTrace(TRACES / "page-cache")
    (report,) = trace.explain(is_sized=False)
    samples = parsed(exported("page-cache"))["memcg_tracer_oom_kills"].samples
    assert report.time is not None
    for one in samples:
        assert one.value == (float(one.timestamp) >= report.time.timestamp())
        assert one.labels["cause"] == report.verdict.cause
    (first,) = (one for one in samples if one.exemplar is not None)
    assert first is next(one for one in samples if one.value == 1)
    assert first.exemplar.labels == {"trace": "page-cache"}
    cpu = parsed(exported("page-cache"))["memcg_tracer_tracer_cpu_seconds"].samples
    assert [one.value for one in cpu] == [trace.meta["cost"]["cpu_s"]]


def test_events_are_counted_from_zero_at_the_next_moment(cgroup: CgroupNow) -> None:
    events = [
        Event(1 * S, "lost_records", ("charge",), 7),
        Event(1 * S + 1, "lost_records", ("charge",), 1),
        Event(9 * S, "lost_records", ("charge",), 2),  # after the last moment
        Event(3 * S, "oom_kills_seen", NOBODY),
    ]
    played = [(second * S, [cgroup]) for second in range(4)]
    found = parsed("".join(families(played, events, cpu_s=None, left_out=frozenset())))
    lost = [(float(one.timestamp), one.value) for one in found["memcg_tracer_lost_records"].samples]
    assert lost == [(0, 0), (1, 7), (2, 8), (3, 10)]
    assert [one.value for one in found["memcg_tracer_oom_kills_seen"].samples] == [0, 0, 0, 1]
    assert "memcg_tracer_tracer_cpu_seconds" not in found


def test_trace_without_a_moment_is_an_empty_document() -> None:
    text = "".join(families([], [Event(1, "lost_records", ("x",))], cpu_s=1.0, left_out=frozenset()))
    assert text == "# EOF\n"


NAMES = st.text() | st.sampled_from(['a"b', "\n", "\\", '\\"', "\x1b[31m", "", "{", "\udc80", "#", "\\n"])


@given(path=NAMES, container=NAMES, pod=NAMES, namespace=NAMES)
def test_hostile_names_stay_in_their_labels(
    cgroup: CgroupNow, path: str, container: str, pod: str, namespace: str
) -> None:
    named = replace(cgroup, path=path, container=container, pod=pod, namespace=namespace)
    events = [Event(S, "oom_kills", (container, namespace, pod, container, "unknown"), exemplar="x")]
    text = "".join(families([(S, [named])], events, cpu_s=None, left_out=frozenset()))
    assert "\x1b" not in text
    (usage,) = parsed(text)["memcg_tracer_usage_bytes"].samples
    assert usage.labels["id"] == visible(path)
    assert usage.labels["pod"] == visible(pod)
    (kill,) = parsed(text)["memcg_tracer_oom_kills"].samples
    assert kill.labels["namespace"] == visible(namespace)
