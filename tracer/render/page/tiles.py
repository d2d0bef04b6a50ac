"""The three tiles below the sentence: the limit, what grew, and the cushion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.categories import PART_BY_NAME
from tracer.render.words import kill_facts, quality_facts, reclaim_facts
from tracer.render.words.escape import visible
from tracer.render.words.places import place_in_short
from tracer.schema import UNLIMITED_BYTES


@dataclass(frozen=True, slots=True)
class Tile:
    """A label, a value in large letters, and a sentence below it, with escaped names."""

    label: str
    value: str
    note: str


_CUSHION: Final = "page cache that made room"


def of_kill(report: OomReport) -> tuple[Tile, Tile, Tile]:
    """Return the tiles of a kill."""
    return _limit(report), _what_grew(report), _cushion(report)


def of_survivor(one: Held) -> tuple[Tile, Tile, Tile]:
    """Return the tiles of a surviving cgroup."""
    crawl = one.progress.crawl
    used = Tile("peak usage", units.size(one.peak_usage_bytes), _room(one))
    if crawl is not None:
        lasted = units.duration((crawl.end - crawl.begin).total_seconds())
        state = visible(one.progress.state or "")
        used = Tile(
            "time lost",
            units.in_percent(crawl.lost_share),
            f"of the tasks' active time, for {lasted}: {state}",
        )
    return _bound(one), used, Tile("cushion", f"{units.size(one.evicted_bytes)} evicted", _again(one))


def _bound(one: Held) -> Tile:
    """Return the tile of the memory.high that slowed the work, else of the limit."""
    place, limit = place_in_short(one), units.limit(one.limit_bytes)
    if one.progress.state != "throttled":
        return Tile("limit", limit, place)
    owner = one.high_owner
    is_own = owner is not None and owner.cgroup == one.cgroup
    note = f"{place}; limit: {limit}" if is_own else reclaim_facts.above_high(one)
    if owner is None:
        return Tile("memory.high", units.size(None), note)
    return Tile(owner.file, units.size(owner.high_bytes), note)


def _again(one: Held) -> str:
    if not one.evicted_bytes:
        return "no page cache had to go to make room"
    if one.refaulted_bytes is None:
        return f"{_CUSHION}; how much of it was read again is not known"
    return f"{_CUSHION}; {units.size(one.refaulted_bytes)} of it was read again"


def _room(one: Held) -> str:
    if one.headroom_bytes is None or one.limit_bytes is None or one.limit_bytes >= UNLIMITED_BYTES:
        return "there is no limit that it could come near"
    return f"{units.size(one.headroom_bytes)} was left below the limit"


def _limit(report: OomReport) -> Tile:
    owner = report.limit_owner
    why = kill_facts.CONSTRAINTS.get(report.constraint, f"set by a BPF policy: {visible(report.constraint)}")
    if report.constraint != "memcg":
        return Tile("limit", "none of a cgroup" if report.constraint == "global" else units.UNKNOWN, why)
    usage = f"usage at the kill: {units.size(owner.usage_bytes)}"
    return Tile("limit", units.limit(owner.limit_bytes), f"{usage}; {place_in_short(owner)}")


def _what_grew(report: OomReport) -> Tile:
    """Return the tile of the memory that grew most before the kill, else of the largest part of usage."""
    grown = next((item for item in report.verdict.evidence if item.kind == "growth"), None)
    if grown is not None:
        value = grown.numbers["grown_bytes"]
        assert isinstance(value, int | float)
        return Tile("what grew", f"+{units.size(value)}", visible(evidence.sentence(grown)))
    parts = kill_facts.composition(report)
    if not parts:
        return Tile("what filled it", units.UNKNOWN, quality_facts.not_known(report, "composition"))
    part, value = parts[0]
    kind, share = PART_BY_NAME[part], units.percent(value, report.composition.total)
    return Tile("what filled it", units.size(value), f"{kind.label}, {share} of usage: {kind.meaning}")


def _cushion(report: OomReport) -> Tile:
    it = report.cushion
    left = f"{units.size(it.cache_end_bytes)} of page cache was left at the kill"
    if it.evicted_bytes is None:
        why = quality_facts.not_known(report, "cushion.evicted_bytes")
        return Tile(
            "cushion", units.UNKNOWN, why if it.cache_end_bytes is None else f"{left}; evicted: {why}"
        )
    if it.exhausted_at is not None:
        left = f"used up {kill_facts.used_up(report, it.exhausted_at)} before it"
        left += kill_facts.evicted_after(report)
    since = "before the kill"
    if it.limit_reached_at is not None and report.time is not None:
        took = units.duration((report.time - it.limit_reached_at).total_seconds())
        since = f"in the {took} from the limit to the kill"
    room = f"{_CUSHION}, {since}" if it.evicted_bytes else f"no page cache made room {since}"
    return Tile("cushion", f"{units.size(it.evicted_bytes)} evicted", f"{room}; {left}")
