"""The feed: lines that are joined, bounded, and safe to print."""

from __future__ import annotations

from synthetic.live_view_rows import HOSTILE, NOON_NS

from tracer.top.feed import KILL, LIMIT, MOST, NOTHING, Decision, with_decision

S = 1_000_000_000


def nothing(at_s: int, attempts: int, name: str = "web") -> Decision:
    time_ns = NOON_NS + at_s * S
    return Decision(time_ns, NOTHING, name, attempts=attempts, begin_ns=time_ns)


def test_reclaim_that_goes_on_to_free_nothing_stays_one_line() -> None:
    feed: tuple[Decision, ...] = ()
    for one in (nothing(0, 3), nothing(1, 5, "db"), nothing(2, 4), nothing(9, 1)):
        feed = with_decision(feed, one)
    assert [one.words() for one in feed] == [
        "db: 5 reclaim attempts freed nothing",
        "web: 8 reclaim attempts freed nothing in 9 s",
    ]


def test_reclaim_after_a_pause_is_another_line() -> None:
    feed = with_decision(with_decision((), nothing(0, 1)), nothing(11, 1))
    assert [one.words() for one in feed] == ["web: 1 reclaim attempt freed nothing"] * 2


def test_kill_between_them_stays_where_it_is() -> None:
    kill = Decision(NOON_NS + S, KILL, "web", "OOM kill of python (pid 7)")
    feed = with_decision(with_decision(with_decision((), nothing(0, 1)), kill), nothing(2, 1))
    assert [one.kind for one in feed] == [KILL, NOTHING]


def test_feed_keeps_the_newest() -> None:
    feed: tuple[Decision, ...] = ()
    for number in range(MOST + 5):
        feed = with_decision(feed, Decision(NOON_NS + number * S, LIMIT, "web", str(number)))
    assert (len(feed), feed[0].sentence, feed[-1].sentence) == (MOST, "5", str(MOST + 4))


def test_hostile_names_and_sentences_are_escaped() -> None:
    words = Decision(NOON_NS, KILL, HOSTILE, f"OOM kill of {HOSTILE}").words()
    assert words.isprintable()
    assert words.count(r"evil\x1b[2J\n\u202ename\xff漢字") == 2


def test_clock_is_utc() -> None:
    assert Decision(NOON_NS + 61 * S, LIMIT, "").clock() == "12:01:01"
