from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Composition, Cushion
from tracer.analysis.results.survivor import Crawl, Held, HighOwner, Progress
from tracer.render.page import tiles
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20


def test_tiles_of_a_kill_are_limit_growth_and_cushion(report: OomReport) -> None:
    limit, grown, cushion = tiles.of_kill(report)
    assert (limit.label, limit.value) == ("limit", "100 MiB")
    assert "usage at the kill: 100 MiB" in limit.note
    assert (grown.label, grown.value) == ("what grew", "+96 MiB")
    assert grown.note == "anonymous memory grew by 96 MiB in the 1.18 s before the kill"
    assert (cushion.label, cushion.value) == ("cushion", "116.5 MiB evicted")
    assert cushion.note == (
        "page cache that made room, in the 2.41 s from the limit to the kill; used up 102.3 ms before it"
    )
    cache = replace(report.cushion, limit_reached_at=None, exhausted_at=None)
    assert tiles.of_kill(replace(report, cushion=cache))[2].note == (
        "page cache that made room, before the kill; 1 MiB of page cache was left at the kill"
    )


def test_cushion_that_gave_nothing_is_no_page_cache_that_made_room(report: OomReport) -> None:
    none = replace(report.cushion, evicted_bytes=0, exhausted_at=None, cache_end_bytes=0)
    assert tiles.of_kill(replace(report, cushion=none))[2].note == (
        "no page cache made room in the 2.41 s from the limit to the kill; 0 B of page cache was left at the "
        "kill"
    )


def test_tile_without_growth_has_the_largest_part(report: OomReport) -> None:
    without = replace(report, verdict=replace(report.verdict, evidence=()))
    filled = tiles.of_kill(without)[1]
    assert (filled.label, filled.value) == ("what filled it", "97 MiB")
    assert filled.note.startswith("anonymous memory, 97.0 % of usage")


def test_tiles_of_unknown_numbers_say_why(report: OomReport) -> None:
    unknown = {"composition": "no sample", "cushion.evicted_bytes": "no events"}
    bare = replace(
        report,
        verdict=replace(report.verdict, evidence=()),
        composition=Composition(),
        cushion=Cushion(),
        quality=replace(report.quality, unknown=unknown),
    )
    _, filled, cushion = tiles.of_kill(bare)
    assert (filled.value, filled.note) == ("not known", "not known: no sample")
    assert (cushion.value, cushion.note) == ("not known", "not known: no events")


def test_tile_of_a_kill_that_no_cgroup_limit_led_to(report: OomReport) -> None:
    limit = tiles.of_kill(replace(report, constraint="global"))[0]
    assert limit.value == "none of a cgroup" and "the whole machine was out of memory" in limit.note
    policy = tiles.of_kill(replace(report, constraint="CONSTRAINT_\x1b[m"))[0]
    assert policy.value == "not known" and r"CONSTRAINT_\x1b[m" in policy.note


def test_tiles_of_a_cgroup_that_lived(held: Held) -> None:
    limit, used, cushion = tiles.of_survivor(held)
    assert (limit.label, limit.value) == ("limit", "100 MiB")
    assert (used.value, used.note) == ("99 MiB", "1 MiB was left below the limit")
    unknown = "page cache that made room; how much of it was read again is not known"
    assert (cushion.value, cushion.note) == ("30 MiB evicted", unknown)
    known = tiles.of_survivor(replace(held, refaulted_bytes=MIB))[2]
    assert known.note == "page cache that made room; 1 MiB of it was read again"
    free = replace(held, limit_bytes=UNLIMITED_BYTES, headroom_bytes=None, evicted_bytes=0)
    limit, used, cushion = tiles.of_survivor(free)
    assert limit.value == "no limit" and "no limit that it could come near" in used.note
    assert cushion.value == "0 B evicted" and cushion.note == "no page cache had to go to make room"


def test_tiles_of_slowed_work_have_the_time_lost(new_held: Callable[..., Held]) -> None:
    begin = pd.Timestamp("2025-11-24 23:40:01", tz="UTC")
    crawl = Crawl(begin, begin + pd.Timedelta("6s"), 0.869, True)
    slowed = replace(
        new_held("/a\x1b"),
        progress=Progress(state="throttled", lost_share=0.5, crawl=crawl),
        high_owner=HighOwner("/a\x1b", None, 41 * MIB, 9, False),
    )
    bound, lost, _ = tiles.of_survivor(slowed)
    assert (bound.label, bound.value) == ("memory.high", "41 MiB")
    assert bound.note == r"/a\x1b; limit: 100 MiB"
    assert (lost.label, lost.value) == ("time lost", "86 %")
    assert "86 % of the active time" in survivor_facts.summary([slowed])
    assert lost.note == "of the tasks' active time, for 6 s: throttled"
    above = replace(slowed, high_owner=HighOwner("/", None, 30 * MIB, 9, True))
    bound = tiles.of_survivor(above)[0]
    assert bound.value == "30 MiB" and r"/, an ancestor of /a\x1b, was above its memory.high" in bound.note
    assert tiles.of_survivor(replace(slowed, high_owner=None))[0].value == "not known"


def test_long_names_are_shortened_in_tiles(new_report: Callable[..., OomReport]) -> None:
    limit = tiles.of_kill(new_report("a", f"/kube/{'x' * 300}/end"))[0]
    assert "/kube/xxx" in limit.note and "xxx/end" in limit.note and "…" in limit.note
    assert len(limit.note) < 100
