"""The choice of the cgroup and of the kill that a picture is about."""

from __future__ import annotations

import pytest

import tracer
from tracer.analysis.trace import AnalysedTrace
from tracer.render.plot.opened_trace import OpenedTrace
from tracer.render.plot.subject import chosen


def test_default_is_the_newest_kill_and_its_limit(trace: OpenedTrace) -> None:
    (report,) = trace.explain()
    subject = chosen(AnalysedTrace(trace.path), [report], None, None)
    assert (subject.cgroup_id, subject.kill) == (report.limit_owner.cgroup_id, report)
    assert subject.origin == report.time
    assert subject.place == "/memcg-tracer-32091-lab-page-cache"


def test_without_a_kill_seconds_count_from_the_begin(thrash: OpenedTrace) -> None:
    lived = AnalysedTrace(thrash.path)
    subject = chosen(lived, [], None, None)
    assert subject.kill is None
    assert subject.origin.value == lived.span_ns[0]
    assert subject.since == "since the trace began"


def test_pattern_that_fits_several_names_is_refused(trace: OpenedTrace) -> None:
    parent = AnalysedTrace(trace.path.with_name("parent-limit"))
    with pytest.raises(tracer.UsageError, match=r"'/memcg\*/\*' fits 3 cgroups, and a picture has one: /"):
        chosen(parent, parent.explain(), "/memcg*/*", None)


def test_kill_of_another_cgroup_is_refused(trace: OpenedTrace) -> None:
    parent = AnalysedTrace(trace.path.with_name("parent-limit"))
    (report,) = parent.explain()
    below = report.victims[0].cgroup_id
    assert below is not None and below != report.limit_owner.cgroup_id
    assert chosen(parent, [report], below, 1).kill is report
    assert chosen(parent, [report], "entrance", None).kill is None
    with pytest.raises(tracer.UsageError, match="kill 1 does not concern the cgroup 'entrance'"):
        chosen(parent, [report], "entrance", 1)
