"""A cause that no module names: what each consumer makes of it comes from its record and its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

import pandas as pd
import pytest
from support.evidence import kinds_of, numbers_of
from support.recorded import TRACES
from synthetic.findings import GFP_NOFS, MIB, SECOND, findings, grew, made_of, trigger

import tracer
from tracer.analysis.explain import recorded_facts, verdict
from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.evidence.kinds import KINDS
from tracer.analysis.explain.measure.findings import Circumstances, EndedWriter, Findings, Fork, Rise, Swap
from tracer.analysis.explain.words.advice import advise, settings
from tracer.analysis.explain.words.cause_words import WORDS, CauseWords
from tracer.analysis.results.kill import Candidate, Evidence, Suspect
from tracer.analysis.results.memory import Allocator, Grown
from tracer.fleet.sizing.needs import needs_of
from tracer.render.words import kill_facts

RAYS: Final[Any] = "cosmic_rays"
Add = Callable[..., CauseRecord]


def suspect(weight: float, kind: str = "constraint") -> Callable[[Findings], Suspect]:
    return lambda _: Suspect(RAYS, weight, Evidence(kind, {}, ()))


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Return a function that registers the cause with these traits, and returns its record."""
    plain: dict[str, Any] = {
        "weigh": suspect(1.0),
        **{"is_limit_too_small": False, "grows": ALL_GROWN, "stated": (), "concerns": ()},
    }

    def register(settings: Any = None, **traits: Any) -> CauseRecord:
        record = CauseRecord(**plain | traits)
        words = CauseWords(
            label="bits were flipped",
            sentence=lambda _: "Cosmic rays hit the counter.",
            cure=lambda _: iter(("Shield the machine.",)),
            settings=settings,
        )
        monkeypatch.setitem(CAUSES, RAYS, record)
        monkeypatch.setitem(WORDS, RAYS, words)
        return record

    return register


def test_verdict_and_advice_are_those_of_the_record(add: Add) -> None:
    add()
    found = findings(made_of(anon=97), grew(anon=97))
    judged = verdict.judge(found)
    assert (judged.cause, judged.summary) == (RAYS, "Cosmic rays hit the counter.")
    assert advise(found, RAYS) == ("Shield the machine.",)


@pytest.mark.parametrize("is_first", [True, False])
def test_of_equals_the_first_in_the_registry_is_the_verdict(
    add: Add, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    found = findings(made_of(anon=97), grew(anon=97))
    anon = CAUSES["anon_growth"]
    record = add(weigh=lambda it: replace(anon.weigh(it), cause=RAYS))  # type: ignore[type-var]
    in_order = {RAYS: record, "anon_growth": anon} if is_first else {"anon_growth": anon, RAYS: record}
    monkeypatch.setattr(verdict, "CAUSES", in_order)
    assert verdict.judge(found).cause == (RAYS if is_first else "anon_growth")


def test_weak_cause_is_picked_if_it_filled_the_limit_together_with_others(add: Add) -> None:
    mixed = findings(made_of(anon=32, shmem=32, unevictable=32), Circumstances())
    add(weigh=suspect(0.39, "fills_limit"))
    assert verdict.judge(mixed).cause == RAYS
    add(weigh=suspect(0.39, "full_swap"))
    assert verdict.judge(mixed).cause == "unknown"


@pytest.mark.parametrize(("stated", "others"), [((), ["anon_growth"]), (("other_cause",), [])])
def test_other_cause_is_shown_unless_the_cause_states_it(
    add: Add, stated: tuple[str, ...], others: list[str]
) -> None:
    add(stated=stated)
    judged = verdict.judge(findings(made_of(anon=70, file_dirty=5), grew(anon=70)))
    assert [one["cause"] for one in numbers_of(judged.evidence, "other_cause")] == others


@pytest.mark.parametrize(
    "kind", ["burst", "protected_memory", "restricted_request", "clean_cache_left", "swap_in_use"]
)
def test_factor_is_left_out_if_the_cause_states_it(add: Add, kind: str) -> None:
    around = replace(
        grew(anon=60), rise=Rise(60 * MIB, SECOND), protected_bytes=3 * MIB, swap=Swap(MIB, None, False)
    )
    found = findings(made_of(anon=60, file_clean=30), around, trigger=trigger(GFP_NOFS))
    assert kind in kinds_of(contributing(found, add()))
    assert kind not in kinds_of(contributing(found, add(stated=(kind,))))


def test_part_of_usage_is_left_out_if_the_cause_states_it(add: Add) -> None:
    found = findings(made_of(anon=60, shmem=20, page_tables=10), grew(anon=60))
    named = numbers_of(contributing(found, add(stated=("anon", "page_tables"))), "also_in_usage")
    assert [one["part"] for one in named] == ["shmem"]


@pytest.mark.parametrize("kind", ["no_swap", "unmapped_shmem"])
def test_factor_of_some_causes_is_shown_if_it_concerns_the_cause(add: Add, kind: str) -> None:
    found = findings(made_of(anon=60, shmem=30), replace(grew(anon=60), swap=Swap(0, 0, False)))
    assert kind not in kinds_of(contributing(found, add()))
    assert kind in kinds_of(contributing(found, add(concerns=(kind,))))


def same_command() -> Findings:
    jobs = tuple(Candidate(at, "cc1", None, 0, 20 * MIB, False, anon_rss_bytes=20 * MIB) for at in range(3))
    return findings(made_of(anon=90), grew(anon=90), candidates=jobs)


def cow() -> Findings:
    fork = Fork(7, "redis", 8, "rdb", 50 * MIB, 25 * MIB, 0, 3 * SECOND)
    both = tuple(
        Candidate(pid, comm, 9, 0, held * MIB, False, anon_rss_bytes=held * MIB)
        for pid, comm, held in ((7, "redis", 70), (8, "rdb", 60))
    )
    return findings(made_of(anon=90), replace(grew(anon=40), fork=fork), candidates=both)


def ended_writer() -> Findings:
    around = replace(grew(shmem=60), ended_writer=EndedWriter(60, "dd", 40 * MIB, 5 * SECOND))
    return findings(made_of(anon=30, shmem=60), around)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (same_command(), "Run fewer cc1 processes"),
        (cow(), "Memory was copied"),
        (ended_writer(), "that memory outlived it"),
    ],
    ids=["same_command", "cow", "ended_writer"],
)
def test_advice_acts_on_what_concerns_the_cause(
    add: Add, request: pytest.FixtureRequest, found: Findings, words: str
) -> None:
    kind = request.node.callspec.id
    add()
    assert words not in " ".join(advise(found, RAYS))
    add(concerns=(kind,))
    assert words in " ".join(advise(found, RAYS))


@pytest.mark.parametrize(
    ("grows", "concerns", "named"),
    [
        (("file",), (), "dd (pid 60): it charged 40 MiB of page cache"),
        (("anon",), (), "sort (pid 41): it charged 28 MiB of anonymous memory"),
        (("shmem",), (), ""),
        (("shmem",), ("ended_writer",), "sort (pid 41): it charged 28 MiB of anonymous memory"),
    ],
)
def test_process_is_named_for_the_kind_that_grows(
    add: Add, grows: tuple[str, ...], concerns: tuple[str, ...], named: str
) -> None:
    grown = (
        Allocator(60, "dd", 40 * MIB, file_bytes=40 * MIB),
        Allocator(41, "sort", 28 * MIB, anon_bytes=28 * MIB),
    )
    add(grows=grows, concerns=concerns)
    advice = " ".join(advise(findings(made_of(anon=90), grew(anon=28), allocators=grown), RAYS))
    assert named in advice
    assert ("Look for growth" in advice) == bool(named)


def test_settings_get_the_room_beside_memory_that_could_not_be_freed(add: Add) -> None:
    found = findings(made_of(anon=61, file_clean=38), grew(anon=61))
    add()
    assert list(settings(found, RAYS)) == []
    add(settings=lambda it, room_bytes: iter((f"{it.composition.anon} beside {room_bytes}",)))
    assert list(settings(found, RAYS)) == [f"{61 * MIB} beside {38 * MIB}"]
    assert list(settings(replace(found, window=None), RAYS)) == []


@pytest.mark.parametrize("is_limit_too_small", [True, False])
def test_fleet_counts_the_kill_as_a_limit_too_small_if_the_cause_says_so(
    add: Add, is_limit_too_small: bool
) -> None:
    add(is_limit_too_small=is_limit_too_small)
    of_life = {"boot_id": "b", "cgroup": "/a", "time": pd.Timestamp("2026-03-01T10:00Z")}
    life = of_life | {"end": pd.NaT, "peak_unreclaimable_bytes": 70 * MIB, "kills": 1}
    kill = of_life | {"cause": RAYS, "limit_bytes": 100 * MIB, "unreclaimable_bytes": 81 * MIB}
    needs = needs_of(pd.DataFrame([life]), pd.DataFrame([kill]))
    assert needs.is_bound.tolist() == [is_limit_too_small]
    assert needs.runs_killed_otherwise == (not is_limit_too_small)
    assert needs.bound_bytes.tolist() == [(100 if is_limit_too_small else 81) * MIB]


def test_report_of_a_recorded_kill_has_the_words_and_the_stacks_of_the_cause(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def grown_within(_tree: Any, kinds: Any, *_: Any) -> Grown:
        asked.append(kinds)
        return Grown()

    monkeypatch.setattr(recorded_facts, "grown_within", grown_within)
    add(grows=("file", "kernel"), settings=lambda _, room_bytes: iter((f"Keep {room_bytes >= 0}.",)))
    (report,) = tracer.open(TRACES / "anon").explain()
    assert report.verdict.cause == RAYS
    assert kill_facts.cause(report).startswith("Cause: bits were flipped (cosmic_rays).")
    assert (report.advice[0], report.advice[-1]) == ("Shield the machine.", "Keep True.")
    assert asked == [("file", "kernel")]


def test_stated_evidence_exists() -> None:
    """A name that is misspelt would state nothing."""
    source = (TRACES.parent / "tracer/analysis/explain/evidence/contributing.py").read_text()
    parts = set(re.findall(r'^        "(\w+)": ', source, flags=re.MULTILINE))
    assert {"anon", "zswap"} <= parts
    stated = {name for cause in CAUSES.values() for name in cause.stated}
    assert stated - set(KINDS) - parts == set()
    assert {name for cause in CAUSES.values() for name in cause.concerns} <= set(KINDS)


def test_every_field_of_the_record_is_asked_for() -> None:
    asked = "\n".join(
        path.read_text()
        for path in (TRACES.parent / "tracer").rglob("*.py")
        if path.parent.name != "causes" and path.name not in ("cause_record.py", "cause_words.py")
    )
    named = [*fields(CauseRecord), *fields(CauseWords)]
    unused = [field.name for field in named if not re.search(rf"\.{field.name}\b", asked)]
    assert unused == []
