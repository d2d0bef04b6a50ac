from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tracer.analysis.results.memory import Allocator, MissPoint, Waiter
from tracer.analysis.results.outcome import NOT_KNOWN, BytesRange
from tracer.analysis.results.survivor import (
    Crawl,
    Delayed,
    Held,
    HighOwner,
    LostTime,
    Progress,
    RereadFile,
)
from tracer.render.terminal import console, survivor_text
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20


@pytest.mark.parametrize("verbose", [False, True])
def test_interrupted_trace_without_data_excludes_no_kill(verbose: bool) -> None:
    text = console.to_text(
        survivor_text.held([], interrupted=True, verbose=verbose), columns=1000, colour=False
    )
    assert "No OOM kill was recorded before the recording broke off" in text
    assert "a kill cannot be excluded" in text
    whole = console.to_text(survivor_text.held([], verbose=verbose), columns=1000, colour=False)
    assert whole.startswith("No OOM kill, and no cgroup of this trace has a limit.")


def test_page_of_an_interrupted_trace_excludes_no_kill() -> None:
    assert "cannot be excluded" in survivor_facts.summary([], interrupted=True)


def crawling(held: Held, **changes: Any) -> Held:
    """Return four compilers that read their program again for 30 s, until the end of the trace."""
    begin = pd.Timestamp("2025-11-24T23:40:00.000000+00:00")
    going: dict[str, Any] = {
        "state": "thrashing",
        "lost_share": 0.91,
        "lost": LostTime(2000.0, 100_000.0, 0.0, None, 500.0, 3100.0, 5000.0),
        "crawl": Crawl(begin, begin + pd.Timedelta(30, "s"), 0.978, lasts=True, grown_bytes=0, room_bytes=9),
        "delayed": (Delayed("cc1plus", 4, 102_000.0),),
        "files": (
            RereadFile("/usr/lib/gcc/cc1plus", 2800 * MIB, executable=True),
            RereadFile("/usr/lib/libc.so.6", 100 * MIB, executable=False),
            RereadFile(None, MIB, executable=False),
        ),
    }
    going |= {name: changes.pop(name) for name in going if name in changes}
    sizes = {"evicted_bytes": 3000 * MIB, "refaulted_bytes": 2901 * MIB}
    return replace(held, progress=Progress(**going), **sizes | changes)


def high_owner(mib: int | None, cgroup: str | None = "/memcg-tracer-78-anon") -> HighOwner:
    """Return the memory.high of the cgroup of the fixture `held`, or else of one above it."""
    high_bytes, is_own = None if mib is None else mib * MIB, cgroup == "/memcg-tracer-78-anon"
    return HighOwner(cgroup, None, high_bytes, 1200 if cgroup else None, is_ancestor=not is_own)


def test_answer_for_a_livelock_says_what_the_time_is_spent_on(held: Held) -> None:
    assert survivor_facts.summary([crawling(held)]) == (
        "For the last 30 s, 4 cc1plus spent 97 % of the active time reading /usr/lib/gcc/cc1plus again; no "
        "OOM kill will end this. /memcg-tracer-78-anon had too little memory for its files at its limit of "
        "100 MiB: 2.9 GiB of page cache was evicted, 2.8 GiB of it read again."
    )


@pytest.mark.parametrize(
    ("grown_mib", "room_mib", "words"),
    [
        (2, 300, "again; no OOM kill will end this."),  # the room lasts 100 times as long
        (
            *(2, 299),
            "again; memory that cannot be reclaimed grew by 6 MiB a minute meanwhile, and a kill comes when "
            "the 299 MiB that was left for it is full.",
        ),
        (0, 0, "again; it is not known whether a kill will end this."),
        (None, 30, "again; it is not known whether a kill will end this."),
        (2, None, "again; it is not known whether a kill will end this."),
    ],
)
def test_answer_says_that_nothing_will_kill_only_if_memory_is_flat(
    held: Held, grown_mib: int | None, room_mib: int | None, words: str
) -> None:
    crawl = crawling(held).progress.crawl
    assert crawl is not None
    grown, room = (None if mib is None else mib * MIB for mib in (grown_mib, room_mib))
    crawl = replace(crawl, grown_bytes=grown, room_bytes=room)
    assert words in survivor_facts.summary([crawling(held, crawl=crawl)])
    past = survivor_facts.summary([crawling(held, crawl=replace(crawl, lasts=False))])
    assert ("No OOM kill ends such work" in past) is crawl.is_flat()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"delayed": (Delayed("node", 1, 9.0),)},
            "For the last 30 s, node spent 97 % of the active time reading",
        ),
        ({"delayed": (Delayed("node", 1, 9.0), Delayed("sh", 1, 8.0))}, "node and 1 more spent 97 % of"),
        ({"delayed": (Delayed("a\x1b", 12, 9.0), Delayed("b", 2, 1.0))}, "12 a\\x1b and 2 more spent "),
        ({"delayed": ()}, "30 s, the tasks spent 97 % of the active time"),
        ({"files": (), "refaulted_bytes": 0}, "reading evicted files again"),
        ({"refaulted_bytes": 9000 * MIB}, "reading /usr/lib/gcc/cc1plus and other files again"),
        ({"lost": LostTime(9.0, 5.0, 0.0, 0.0, 0.0, 1.0, 1.0)}, "time in reclaim and reading /usr"),
        ({"lost": LostTime(9.0, 5.0, 20.0, 0.0, 0.0, 1.0, 1.0)}, "time reading swapped memory back;"),
        ({"limit_bytes": UNLIMITED_BYTES}, "had no limit; 2.9 GiB"),
        ({"high_owner": high_owner(50)}, "at its memory.high of 50 MiB:"),
        ({"high_owner": high_owner(50, "/up")}, "at the memory.high of 50 MiB of /up:"),
        ({"high_owner": high_owner(300, "/up")}, "at its limit of 100 MiB:"),
    ],
)
def test_answer_for_slow_tasks_names_them_and_what_is_short(
    held: Held, changes: dict[str, Any], words: str
) -> None:
    assert words in survivor_facts.summary([crawling(held, **changes)])


def test_answer_for_tasks_that_recovered_promises_no_livelock(held: Held) -> None:
    crawl = crawling(held).progress.crawl
    assert crawl is not None
    text = survivor_facts.summary([crawling(held, crawl=replace(crawl, lasts=False))])
    assert text.startswith(
        "For 30 s, 4 cc1plus spent 97 % of the active time reading /usr/lib/gcc/cc1plus again. "
    )
    assert " had too little memory for its files at its limit of 100 MiB: " in text
    assert "no OOM kill will" not in text
    assert text.endswith("No OOM kill ends such work: there is always page cache to evict.")


@pytest.mark.parametrize(
    ("delayed", "words"),
    [
        ((Delayed("python", 1, 9.0),), "For 30 s, python spent 97 % of the active time throttled: "),
        ((), "For 30 s, the tasks spent 97 % of the active time throttled: "),
    ],
)
def test_answer_for_tasks_that_were_throttled_is_in_the_past(
    held: Held, delayed: tuple[Delayed, ...], words: str
) -> None:
    crawl = crawling(held).progress.crawl
    assert crawl is not None
    over = crawling(
        held,
        state="throttled",
        crawl=replace(crawl, lasts=False),
        delayed=delayed,
        high_owner=high_owner(90),
    )
    text = survivor_facts.summary([over])
    assert text.startswith(words)
    assert "was above its memory.high of 90 MiB" in text


def test_answer_for_throttled_tasks_names_memory_high(held: Held) -> None:
    one = crawling(held, state="throttled", high_owner=high_owner(90), psi_some_share=0.5)
    assert survivor_facts.summary([one]) == (
        "For the last 30 s, 4 cc1plus spent 97 % of the active time throttled: /memcg-tracer-78-anon "
        "was above its memory.high of 90 MiB, which slows tasks and never kills."
    )
    facts = dict(survivor_facts.held(one))
    assert facts["memory.high"] == "90 MiB, exceeded 1,200 times: above it, tasks are throttled, never killed"
    assert "for a cgroup at its limit or above its memory.high)" in facts["evicted"]
    assert "reads (nearly) nothing again, if memory.high is no lower" in facts["minimum limit"]
    assert "memory.high" not in dict(survivor_facts.held(held))["minimum limit"]
    assert "memory.high" not in dict(survivor_facts.held(held))["evicted"]
    assert facts["pressure"] == (
        "some task waited for memory 50 % of the whole trace, idle time included (PSI)"
    )
    assert "memory.high" not in dict(survivor_facts.held(replace(one, high_owner=None)))


@pytest.mark.parametrize("state", ["thrashing", "held"])
def test_limit_with_which_nothing_is_read_again_depends_on_memory_high_that_was_exceeded(
    held: Held, state: str
) -> None:
    """The count includes events of cgroups below that were not traced: then no owner is known."""
    one = crawling(held, state=state, high_events=7)
    condition = "reads (nearly) nothing again, if memory.high is no lower"
    for owner in (None, high_owner(50)):
        assert condition in dict(survivor_facts.held(replace(one, high_owner=owner)))["minimum limit"]
    for events, owner in ((0, high_owner(50)), (None, None), (0, high_owner(50, "/up"))):
        never = replace(one, high_events=events, high_owner=owner)
        minimum = dict(survivor_facts.held(never))["minimum limit"]
        assert "reads (nearly) nothing again" in minimum and "memory.high" not in minimum


@pytest.mark.parametrize(
    ("again", "words"),
    [
        ((12 * MIB, 14 * MIB), "it survives, and reads 12 MiB to 14 MiB again"),
        (NOT_KNOWN, "it survives"),
    ],
)
def test_limit_that_is_enough_without_one_for_its_cache_has_the_reason(
    held: Held, again: BytesRange, words: str
) -> None:
    enough = replace(held.sizing.outcomes[0], read_again_bytes=again)
    sizing = replace(held.sizing, min_limit_bytes=(47 * MIB, None), basis=(), outcomes=(enough,))
    quality = replace(held.quality, unknown={"sizing.min_limit_bytes": "others evicted it"})
    facts = dict(survivor_facts.held(replace(held, sizing=sizing, quality=quality)))
    assert facts["minimum limit"] == (
        f"killed below 47 MiB; from 50 MiB, {words}; a limit that is large enough for its page cache is not "
        "known: others evicted it."
    )


@pytest.mark.parametrize(
    ("owner", "clause", "fact"),
    [
        (
            high_owner(90, "/u\x1b"),
            "/u\\x1b, an ancestor of /memcg-tracer-78-anon, was above its memory.high of 90 MiB",
            "90 MiB of /u\\x1b, exceeded 1,200 times",
        ),
        (
            high_owner(90, None),
            "a cgroup that was not traced, an ancestor of /memcg-tracer-78-anon, was above its memory.high "
            "of 90 MiB",
            "90 MiB of a cgroup that was not traced",
        ),
        (
            high_owner(None, None),
            "a cgroup that was not traced, an ancestor of /memcg-tracer-78-anon, was above its memory.high "
            "(its value is not known)",
            "a value that is not known of a cgroup that was not traced",
        ),
        (
            replace(high_owner(90, "/memcg-tracer-78-anon/b"), is_ancestor=False),
            "/memcg-tracer-78-anon/b, a descendant of /memcg-tracer-78-anon, was above its memory.high of "
            "90 MiB",
            "90 MiB of /memcg-tracer-78-anon/b, exceeded 1,200 times",
        ),
        (None, "/memcg-tracer-78-anon was above a memory.high that is not known", None),
    ],
)
def test_answer_for_throttled_tasks_says_whose_memory_high_it_is(
    held: Held, owner: HighOwner | None, clause: str, fact: str | None
) -> None:
    one = crawling(held, state="throttled", high_owner=owner)
    assert survivor_facts.summary([one]) == (
        f"For the last 30 s, 4 cc1plus spent 97 % of the active time throttled: {clause}, which slows "
        "tasks and never kills."
    )
    expected = None if fact is None else f"{fact}: above it, tasks are throttled, never killed"
    for facts in (survivor_facts.held(one), survivor_facts.in_brief(one)):
        assert dict(facts).get("memory.high") == expected


def test_facts_of_a_livelock_have_its_state_lost_time_work_and_files(held: Held) -> None:
    facts = list(survivor_facts.held(crawling(held)))
    named = dict(facts)
    assert named["state"] == (
        "thrashing: 97 % of the tasks' active time was lost in the 30 s from 2025-11-24 23:40:00.000000 UTC"
    )
    assert named["lost time"] == (
        "91 % of all the active time of the tasks: 1 min 40 s reading again what had been evicted, 2 s in "
        "reclaim (waits for a CPU left out)"
    )
    assert named["work"] == "3.10 s of CPU time outside of reclaim, and 500 ms of reading"
    waiter = Waiter(7, "cc1plus", 3000.0, {"reclaim": 3000.0})
    waited = replace(crawling(held), reclaim=replace(held.reclaim, waiters=(waiter,)))
    for words in (survivor_facts.held, survivor_facts.in_brief):
        assert dict(words(waited))["waited most"] == "cc1plus (7) 3 s in reclaim, beside its waits for files"
    first = facts.index(("of these", "2.7 GiB of /usr/lib/gcc/cc1plus, which it executes"))
    assert facts[first + 1 : first + 3] == [
        ("", "100 MiB of /usr/lib/libc.so.6"),
        ("", "1 MiB of a file whose name is not known"),
    ]
    assert "state" in dict(survivor_facts.in_brief(crawling(held)))
    assert "state" not in dict(survivor_facts.in_brief(held))
    assert "lost time" not in dict(survivor_facts.held(held))


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (
            [(10, 0.3), (10.01, 0.6), (12, 0.9), (20, 1.0)],
            "+10 MiB would have spared 60 % of what was read again, +12 MiB 90 %, +20 MiB all, ",
        ),
        ([(20, 0.4), (20.01, 1.0)], "+20 MiB would have spared all of what was read again, "),
    ],
)
def test_more_memory_names_each_size_once(held: Held, curve: list[tuple[float, float]], words: str) -> None:
    points = tuple(MissPoint(int(mib * MIB), int(share * 100 * MIB), share) for mib, share in curve)
    fact = dict(survivor_facts.held(replace(held, miss_curve=points)))["more memory"]
    assert fact.startswith(
        words + "on an LRU list; short of all, the kernel's lists keep up to a quarter less"
    )


def test_peak_of_the_kernel_is_shown_beside_that_of_the_trace_if_it_is_known(held: Held) -> None:
    facts = list(survivor_facts.held(replace(held, kernel_peak_bytes=100 * MIB)))
    seen = facts.index(("peak usage", "99 MiB, 99.0 % of the limit; 1 MiB was left"))
    assert facts[seen + 1] == ("its peak ever", "100 MiB by the kernel's own count (memory.peak)")
    assert "its peak ever" not in dict(survivor_facts.held(held))


@pytest.mark.parametrize(
    ("at_peak_mib", "brief", "whole"),
    [
        (39.5, "39.5 MiB anonymous memory", "39.5 MiB"),
        (38, "38 MiB anonymous memory (40 MiB at another time)", "38 MiB (40 MiB at another time)"),
        (None, None, "not known"),
    ],
)
def test_memory_at_the_peak_has_the_most_anon_if_that_was_at_another_time(
    held: Held, at_peak_mib: float | None, brief: str | None, whole: str
) -> None:
    anon = None if at_peak_mib is None else int(at_peak_mib * MIB)
    one = replace(held, anon_at_peak_bytes=anon)
    made_of = "58 MiB page cache" + ("" if brief is None else f", {brief}")
    assert dict(survivor_facts.in_brief(one))["made of"] == made_of
    assert dict(survivor_facts.held(one))["made of"] == (
        "page cache (file contents, which reclaim can drop) 58 MiB, anon (process memory without a file) "
        f"{whole}, at 2025-11-24 23:40:03.000000 UTC"
    )


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "words"),
    [
        (300, 300, "300 ms before the peak of usage"),
        (0, 0, "at the peak of usage"),
        (0.9, 0.8, "about 10 ms before the peak of usage"),
        (1300, 56, "1.30 s to about 60 ms before the peak of usage"),
    ],
)
def test_moment_in_which_a_process_was_charged_is_no_span(
    held: Held, from_ms: float, until_ms: float, words: str
) -> None:
    assert held.peak_time is not None
    began, until = (held.peak_time - pd.Timedelta(ms, "ms") for ms in (from_ms, until_ms))
    writer = Allocator(41, "writer", 9 * MIB, grew_from=began, grew_until=until)
    said = dict(survivor_facts.in_brief(replace(held, allocators=(writer,))))["allocated"]
    assert said.endswith(f"most of it {words}")


def test_least_limit_that_is_nothing_is_not_said(held: Held) -> None:
    quality = replace(held.quality, unknown={"sizing.min_limit_bytes": "its command was killed"})
    sizing = replace(held.sizing, min_limit_bytes=(0, None), basis=(), outcomes=())
    said = dict(survivor_facts.in_brief(replace(held, sizing=sizing, quality=quality)))
    assert said["minimum limit"] == "not known: its command was killed"
    some = replace(sizing, min_limit_bytes=(MIB, None))
    said = dict(survivor_facts.in_brief(replace(held, sizing=some, quality=quality)))
    assert said["minimum limit"].startswith("at least 1 MiB; how much is enough is not known: ")


@pytest.mark.parametrize(
    ("ended_ms", "words"), [(None, ""), (443, "; the process had ended by the peak of usage")]
)
def test_process_that_had_ended_by_the_peak_is_said_to_have_ended(
    held: Held, ended_ms: int | None, words: str
) -> None:
    assert held.peak_time is not None
    before: dict[str, Any] = {
        name: held.peak_time - pd.Timedelta(milliseconds, "ms")
        for name, milliseconds in (("grew_from", 3000), ("grew_until", 500), ("exited", ended_ms))
        if milliseconds is not None
    }
    writer = Allocator(41, "writer", 9 * MIB, file_bytes=9 * MIB, **before)
    for facts in (survivor_facts.held, survivor_facts.in_brief):
        assert dict(facts(replace(held, allocators=(writer,))))["allocated"] == (
            f"writer (41) 9 MiB (9 MiB page cache), most of it 3 s to 500 ms before the peak of usage{words}"
        )
