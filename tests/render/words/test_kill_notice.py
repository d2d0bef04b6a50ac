"""The line about a kill that a running recorder prints."""

from __future__ import annotations

from synthetic.unset import unset_row

from tracer.capture.observer import Sigkilled
from tracer.render.words.kill_notice import kill_notice, sigkill_notice, sigkill_notices

KILL = {"time": 1_764_000_243_000_000_000, "comm": "tail", "pid": 25057, "limit_bytes": 48 << 20}


def test_notice_has_the_name_the_clock_and_the_limit() -> None:
    expected = "OOM kill in web at 16:04:03 UTC: tail (pid 25057), at a limit of 48 MiB"
    assert kill_notice(KILL, "web") == expected
    assert kill_notice(KILL | {"limit_bytes": None}, "web") == expected.partition(", at")[0]


def test_hostile_names_are_escaped() -> None:
    assert kill_notice(KILL | {"comm": "\x1b[31m"}, "a\nb").isprintable()


SIGKILL = unset_row("sigkills") | {
    "time": KILL["time"],
    "tgid": 7,
    "comm": "web",
    "way": "kill",
    "sender_tgid": 3,
    "sender_comm": "timeout",
    "parent1_tgid": 2,
    "parent1_comm": "bash",
}


def test_notice_of_a_sigkill_has_the_sender_and_its_parent() -> None:
    target, sender = "web (pid 7) in NAME at 16:04:03 UTC", "timeout (pid 3), child of bash (pid 2)"
    assert sigkill_notice(Sigkilled(SIGKILL, "NAME")) == f"SIGKILL to {target}: sent by {sender}"


def test_hostile_names_in_a_notice_of_a_sigkill_are_escaped() -> None:
    hostile = dict.fromkeys(("comm", "sender_comm", "parent1_comm"), "\x1b[31m\n")
    assert sigkill_notice(Sigkilled(SIGKILL | hostile, "a\nb", 3)).isprintable()


def test_notice_of_several_sigkills_has_their_number_and_the_last() -> None:
    notice = sigkill_notice(Sigkilled(SIGKILL, "NAME", 1208))
    assert notice.startswith(
        "SIGKILL to 1,208 more processes in NAME, the last at 16:04:03 UTC: web (pid 7), "
    )


def test_many_sigkills_at_once_have_eight_lines_and_a_count() -> None:
    one = Sigkilled(SIGKILL, "a")
    assert [*sigkill_notices([one])] == [sigkill_notice(one)]
    lines = [*sigkill_notices([one] * 1207 + [Sigkilled(SIGKILL, "b", 1)])]
    assert len(lines) == 9
    assert lines[-1] == "SIGKILL to 1,200 more processes: the table sigkills has them"
