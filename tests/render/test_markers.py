from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from tracer.analysis.report import OomReport
from tracer.render.markers import of_cgroup


def test_a_kill_marks_its_cgroup_and_those_above(
    timeline: pd.DataFrame, new_report: Callable[..., OomReport]
) -> None:
    reports = [new_report(cgroup="/docker/web")]
    assert [marker.is_kill for marker in of_cgroup(reports, "/docker/web", timeline)] == [False, True]
    assert [marker.is_kill for marker in of_cgroup(reports, "/docker", timeline)] == [True]
    assert [marker.is_kill for marker in of_cgroup(reports, "/", timeline)] == [True]
    assert of_cgroup(reports, "/docker/we", timeline) == []
    assert of_cgroup(reports, "/docker/web/child", timeline) == []


def test_what_lies_outside_the_time_shown_is_left_out(timeline: pd.DataFrame, report: OomReport) -> None:
    assert of_cgroup([report], "/memcg-tracer-77-page-cache", timeline.iloc[:30]) == []
