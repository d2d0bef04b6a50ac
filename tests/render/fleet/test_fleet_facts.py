"""The sentences of a fleet: causes, limits, evictions, and what is missing."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from tracer.fleet.reduction.fleet_answer import Evictor, Fleet, GrownFunction, KillCount, Workload
from tracer.render.fleet import fleet_facts, fleet_page, fleet_tables


def test_facts_answer_why_which_limits_and_who(fleet: Fleet) -> None:
    assert list(fleet_facts.facts(fleet)) == [
        ("causes", "20 anon_growth (process memory grew); 3 shmem (tmpfs or shared memory filled the limit)"),
        (
            "SIGKILL",
            "16 processes ended by others than the OOM killer: runc 11, systemd-oomd 4, the kernel 1; not "
            "known of 3 older traces",
        ),
        ("limits", "2 too low, 1 too high by more than 10 %, 1 not judged, of 4 workloads"),
        (
            "too low",
            "shop/web/app has 256 MiB (suggested 310 MiB), postgres has 1 GiB (needs more than 1 GiB)",
        ),
        ("too high", "batch has 2 GiB (suggested 120 MiB)"),
        (
            "evictions",
            "7.6 GiB of page cache by tasks of another workload; the most, 7.5 GiB, by backup@.service from "
            "postgres",
        ),
        ("recorded", "from 2026-11-20 06:00 to 2026-11-27 06:00 UTC"),
    ]


def test_functions_that_grew_are_a_fact_and_a_table(fleet: Fleet) -> None:
    begin = pd.Timestamp("2026-11-20 06:00", tz="UTC")
    load = GrownFunction("load_rows", "app.py", 41, None, 31, 12, 2, begin, begin)
    hostile = GrownFunction("\x1b[31mgrow\n", None, None, "wo;rk", 1, 1, 1, begin, begin)
    known = replace(fleet, code=[load, hostile])
    said = dict(fleet_facts.facts(known))["what grew"]
    assert said == r"load_rows (app.py:41): 31 kills on 12 hosts; \x1b[31mgrow\n (wo;rk): 1 kill on 1 host"
    (table,) = (one for one in fleet_tables.sections(known, 15) if one.heading.startswith("The code"))
    assert table.rows[0] == ("31", "12", "2", "2026-11-20 06:00", "load_rows (app.py:41)")
    assert "\x1b" not in str(table.rows)
    assert "what grew" not in dict(fleet_facts.facts(fleet))


def test_sentence_names_no_workload_as_most_often_killed_if_each_was_once(fleet: Fleet) -> None:
    once = [replace(one, count=1) for one in fleet.kills[:2]]
    assert fleet_facts.sentence(replace(fleet, kills=once)).endswith("of 3 hosts.")
    assert fleet_facts.sentence(fleet).endswith("Most often: shop/web/app, 20 times (anon_growth).")


def test_facts_name_some_of_many_and_count_the_rest(fleet: Fleet) -> None:
    low = [replace(fleet.workloads[0], workload=f"w{number}", kills=9 - number) for number in range(5)]
    kills = [
        KillCount(cause, "x", "node-1", number, fleet.kills[0].first, fleet.kills[0].last)
        for number, cause in enumerate(["shmem", "a", "unknown", "b", "newer", "anon_growth"], start=1)
    ]
    found = dict(fleet_facts.facts(replace(fleet, workloads=low, kills=kills)))
    assert found["too low"] == (
        "w0 has 256 MiB (suggested 310 MiB), w1 has 256 MiB (suggested 310 MiB), "
        "w2 has 256 MiB (suggested 310 MiB), and 2 more"
    )
    assert found["causes"] == (
        "6 anon_growth (process memory grew); 5 newer; 4 b; 3 unknown (the records do not show why); 2 a; "
        "and 1 more"
    )
    hosts = [replace(fleet.hosts[2], host=f"h{number}") for number in range(1000)]
    assert dict(fleet_facts.warnings(replace(fleet, hosts=hosts)))["names"] == (
        "more than one machine is called h0 (at least 2), h1 (at least 2), h2 (at least 2), and 997 more"
    )


def test_facts_of_a_fleet_without_foreign_evictions_say_so(fleet: Fleet) -> None:
    evictors = [Evictor("a", "a", "reclaim_memcg", 1, 5 << 20, 0), Evictor("a", "b", "x", 1, None, None)]
    found = dict(fleet_facts.facts(replace(fleet, evictors=evictors)))
    assert found["evictions"] == "5 MiB of page cache, none by tasks of another workload"
    assert "evictions" not in dict(fleet_facts.facts(replace(fleet, evictors=evictors[1:])))


def test_time_that_was_asked_for_is_a_fact(fleet: Fleet) -> None:
    since, until = (pd.Timestamp(day, tz="UTC") for day in ("2026-11-20", "2026-11-27"))
    windows = [(None, None), (since, None), (None, until), (since, until)]
    fleets = [replace(fleet, since=begin, until=end) for begin, end in windows]
    asked = [dict(fleet_facts.facts(one)).get("asked for") for one in fleets]
    assert asked == [
        None,
        "from 2026-11-20 00:00 UTC",
        "until 2026-11-27 00:00 UTC",
        "from 2026-11-20 00:00 until 2026-11-27 00:00 UTC",
    ]


def test_quiet_fleet_has_no_facts_but_its_time(quiet: Fleet) -> None:
    assert [label for label, _ in fleet_facts.facts(quiet)] == ["recorded"]
    assert list(fleet_facts.warnings(quiet)) == []


def test_kills_that_may_be_of_two_recorders_are_a_warning(quiet: Fleet) -> None:
    (words,) = dict(fleet_facts.warnings(replace(quiet, perhaps_repeated_kills=3))).values()
    assert words.startswith("3 of the kills may be repetitions, seen by another recorder")


def held_back(fleet: Fleet, name: str, limit_mib: int) -> Workload:
    """Return a workload that was throttled and thrashing, and needs at least 95.5 MiB."""
    first = fleet.workloads[0]
    suggestion = replace(
        first.suggestion,
        suggested_limit_bytes=None,
        least_limit_bytes=191 << 19,
        held_back_runs=3,
        held_back_by=("throttled", "thrashing"),
    )
    return replace(first, workload=name, kills=0, limit_bytes=limit_mib << 20, suggestion=suggestion)


def test_runs_that_were_held_back_are_said_to_need_at_least_what_they_had(fleet: Fleet) -> None:
    few = replace(fleet, workloads=[held_back(fleet, "a\x1b[31m", 40), held_back(fleet, "b", 900)])
    found = dict(fleet_facts.facts(few))
    assert found["limits"] == "1 too low, 1 not judged, of 2 workloads"
    assert found["too low"] == r"a\x1b[31m has 40 MiB (needs at least 95.5 MiB)"
    why = "for its runs were slowed down by memory.high and read the same page cache again and again"
    assert found["held back"] == (
        rf"a\x1b[31m needs at least 95.5 MiB, {why}; b needs at least 95.5 MiB, {why}"
    )
    for section in fleet_tables.sections(few, 10):
        if "suggested" in (titles := [title for title, _ in section.columns]):
            shown = [row[titles.index("suggested")] for row in section.rows]
            assert shown == ["at least 95.5 MiB"] * 2
            assert [row[-1] for row in section.rows] == [r"a\x1b[31m", "b"]
    page = fleet_page.page(few).replace("\u00a0", " ")
    assert page.count('<td class="right">at least 95.5 MiB</td>') == 2 and "\x1b" not in page
