"""Many kills: a summary for each name, and a line for each kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from tracer.analysis.explain import logged_kills
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split
from tracer.render.terminal import console, explain_text
from tracer.render.words import kill_facts, kill_list

HOSTILE = "\x1b[31m[red]<script>\nx"


def loop(report: OomReport, count: int, **owner: Any) -> list[OomReport]:
    """Return `count` kills of one name, a second apart."""
    return [
        replace(
            report,
            kill_id=number,
            time=pd.Timestamp(f"2025-11-24T23:50:{number:02}.250000+00:00"),
            limit_owner=replace(report.limit_owner, **owner, run=number, runs=count),
        )
        for number in range(1, count + 1)
    ]


def with_cause(report: OomReport, cause: str) -> OomReport:
    return replace(report, verdict=replace(report.verdict, cause=cause))  # type: ignore[arg-type]


def drawn(lines: Sequence[object], columns: int = 100) -> str:
    return console.to_text(lines, columns=columns, colour=False)  # type: ignore[arg-type]


def test_summary_of_one_name_counts_its_causes(report: OomReport) -> None:
    seven = loop(report, 7, container="crasher")
    assert list(kill_list.summary(seven)) == [
        "container crasher: killed 7 times in 6 s, the same cause each time (anon_growth)."
    ]
    mixed = [*seven[:5], *(with_cause(one, "shmem") for one in seven[5:])]
    (text,) = kill_list.summary(mixed)
    assert text.endswith("killed 7 times in 6 s, the causes: anon_growth 5 times, shmem twice.")


def test_summary_has_the_most_killed_name_first(report: OomReport) -> None:
    machine = replace(report, constraint="global", limit_owner=replace(report.limit_owner, cgroup=None))
    machine = replace(machine, limit_owner=replace(machine.limit_owner, container=None, pod=None))
    kills = [
        machine,
        *loop(report, 2, container="app", pod="web-1"),
        *loop(report, 3, container="app", pod="web-2"),
    ]
    assert [text.partition(":")[0] for text in kill_list.summary(kills)] == [
        "container app, pod web-2",
        "container app, pod web-1",
        "the whole machine",
    ]
    many = [one for number in range(9) for one in loop(report, 1, container=f"c{number}")]
    assert list(kill_list.summary(many))[-1] == "and 5 more, killed 5 times in all."


def test_pod_at_its_own_limit_is_named(report: OomReport) -> None:
    (kill,) = loop(report, 1, container=None, pod="web-1", cgroup="/kubepods.slice/pod1.slice")
    assert list(kill_list.summary([kill])) == ["pod web-1: killed once (anon_growth)."]
    assert next(kill_list.table([kill]).rows)[-1] == "pod web-1"


def test_reports_without_a_victim_are_not_counted_as_kills(report: OomReport) -> None:
    kills = loop(report, 2, container="crasher")
    kills[1] = replace(kills[1], victims=())
    (text,) = kill_list.summary(kills)
    assert text.startswith("container crasher: out of memory twice in 1 s,")
    story = drawn(list(explain_text.above_the_explanation(kills, kills[0])))
    assert "Kill 1, the newest with a known victim (1 other: --kill N explains one)" in story


def test_list_has_a_line_for_each_kill(report: OomReport, matches_golden: Callable[[str, str], None]) -> None:
    kills = loop(report, 3, container="crasher")
    kills[1] = replace(kills[1], victims=report.victims * 3)
    kills[2] = replace(kills[2], victims=())
    matches_golden("kills.txt", drawn(list(explain_text.listed_kills(kills))))
    alone = [replace(one, limit_owner=replace(one.limit_owner, runs=1)) for one in kills]
    assert "run" not in drawn(list(explain_text.listed_kills(alone)))


def test_last_kills_are_above_the_explanation(report: OomReport) -> None:
    text = drawn(
        list(explain_text.above_the_explanation(kills := loop(report, 30, container="crasher"), kills[-1]))
    )
    numbers = [line.split()[0] for line in text.splitlines() if line.endswith("  crasher")]
    assert numbers == [str(number) for number in range(23, 31)]
    assert "22 earlier kills are left out: --list shows all" in text
    nine = drawn(list(explain_text.above_the_explanation(kills[:9], kills[8])))
    assert "1 earlier kill is left out: --list shows all" in nine
    assert "Kill 30, the newest (29 others" in text
    assert len(text.splitlines()) <= 16


def test_times_of_several_days_have_their_date(report: OomReport) -> None:
    kills = loop(report, 2)
    kills[1] = replace(kills[1], time=pd.Timestamp("2025-11-25T00:00:01+00:00"))
    text = drawn(list(explain_text.listed_kills(kills)))
    assert "2025-11-24 23:50:01" in text and "2025-11-25 00:00:01" in text and "times are of" not in text


def test_kill_without_a_time_or_an_owner_is_not_known(report: OomReport) -> None:
    owner = replace(report.limit_owner, cgroup=None, container=None, pod=None, limit_bytes=None)
    kills = [replace(one, time=None, limit_owner=owner) for one in loop(report, 2)]
    text = drawn(list(explain_text.listed_kills(kills)))
    assert text.count("not known") >= 4
    assert next(kill_list.summary(kills)).startswith("unknown cgroups: killed twice,")


def test_kills_against_the_order_of_time_have_no_length(report: OomReport) -> None:
    newest_first = loop(report, 2)[::-1]
    assert " in " in next(kill_list.summary(newest_first[::-1])).split(",")[0]
    assert ": killed twice, the same cause each time" in next(kill_list.summary(newest_first))


def test_container_id_is_shortened(report: OomReport) -> None:
    text = drawn(
        list(explain_text.listed_kills(loop(report, 2, container="4f2a" * 16, cgroup="/docker/4f2a")))
    )
    assert text.count("  4f2a4f2a4f2a\n") == 2 and "4f2a" * 4 not in text


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_hostile_names_are_escaped_within_the_width(report: OomReport, columns: int) -> None:
    victim = replace(report.victims[0], comm=HOSTILE)
    kills = loop(replace(report, victims=(victim,)), 3, container=HOSTILE, pod=HOSTILE, cgroup=HOSTILE)
    text = drawn(list(explain_text.above_the_explanation(kills, kills[-1])), columns)
    assert "\x1b" not in text
    assert r"\x1b[31m[red]" in text
    assert max(map(cell_len, text.splitlines())) <= columns


_KILLED = "Killed process 12 (foo) total-vm:1000kB, anon-rss:500kB, file-rss:0kB, shmem-rss:0kB"


def logged(*lines: str) -> list[OomReport]:
    return list(logged_kills.explain(reports(split(["\n".join(lines).encode()]))))


@pytest.mark.parametrize(
    ("dates", "passed"),
    [
        (("Dec  1 10:00:01", "Dec  1 10:00:05"), " in 4 s"),
        (("Dec 31 23:59:59", "Jan  1 00:00:05"), ""),  # not known: no year
        (("2026-12-01 10:00:01", "2026-12-01 10:00:05"), " in 4 s"),
    ],
)
def test_kills_of_two_machines_pass_the_time_between_their_dates(dates: tuple[str, str], passed: str) -> None:
    kills = logged(
        *(
            f"{date} node{number} kernel: [{uptime}.100000] Memory cgroup out of memory: {_KILLED}"
            for number, (date, uptime) in enumerate(zip(dates, (100, 900_000), strict=True))
        )
    )
    (text,) = kill_list.summary(kills)
    assert text.startswith(f"unknown cgroups: killed twice{passed}, ")


def test_date_with_a_year_lacks_only_its_time_zone() -> None:
    kills = logged(
        *(
            f"{date} node1 kernel: Memory cgroup out of memory: {_KILLED}"
            for date in ("2026-12-01 10:00:01", "Dec  1 10:00:02")
        )
    )
    assert [kill.quality.unknown["time"].partition(", without ")[2] for kill in kills] == [
        "a time zone",
        "a year or a time zone",
    ]


def test_kill_that_may_be_of_some_nodes_is_not_listed_as_of_the_whole_machine() -> None:
    (kill,) = logged(f"[1.000000] Out of memory: {_KILLED}")
    assert next(kill_list.table([kill]).rows)[-1] == "the machine or some nodes"
    assert next(kill_list.summary([kill])) == "the machine or some nodes: killed once (global_pressure)."
    assert "or the nodes that a cpuset" in dict(kill_facts.setting(kill))["limit"]
