"""Sentences about SIGKILLs that were not the OOM killer's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.enumerations import KILL_WAY
from tracer.render.words.sigkill_words import beside_kills, sent_by, sentence, sentences

WEB = Party(7, "web", "/docker/1", "shop")
RUNC, SHIM = Party(9, "runc"), Party(4, "containerd-shim")
STOP = Sigkill(None, WEB, RUNC, (SHIM, Party(1, "systemd")), "pidfd", 10.0, 5, 30 << 20, 100 << 20)


def by(comm: str, **changes: object) -> str:
    """Return the sentence for a sender of that name, a child of init, without a SIGTERM before."""
    kill = replace(STOP, sender=Party(9, comm), parents=(), since_sigterm_s=None, limit_bytes=None)
    return sentence(replace(kill, **changes))  # type: ignore[arg-type]


def test_stop_that_took_too_long_is_named_with_the_runtime_and_the_memory() -> None:
    assert sentence(STOP) == (
        "Not an OOM kill: runc (pid 9), child of containerd-shim (pid 4), sent SIGKILL to web (pid 7), 10 s "
        "after SIGTERM: a stop that took too long. Its cgroup used 30 MiB of 100 MiB (30.0 %)."
    )
    assert sentence(replace(STOP, usage_bytes=95 << 20)).endswith("(95.0 %), near its limit.")


@pytest.mark.parametrize(
    ("comm", "said"),
    [
        ("runc", ": its container runtime killed it."),
        ("containerd-shim", ": its container runtime killed it."),
        ("timeout", ": its time was over."),
        (
            "systemd-oomd",
            " in user space, which acts on pressure before the kernel does.",
        ),
        ("earlyoom", ": an OOM killer in user space, which acts when the machine has little memory left."),
        ("bash", " sent SIGKILL to web (pid 7)."),
    ],
)
def test_known_sender_is_explained_by_what_it_does(comm: str, said: str) -> None:
    assert by(comm).endswith(said)


def test_sigterm_just_before_or_long_before_is_no_stop_that_took_too_long() -> None:
    assert by("bash", since_sigterm_s=0.01).endswith("after SIGTERM.")
    assert by("bash", since_sigterm_s=86_400.0).endswith("after SIGTERM.")
    assert by("bash", since_sigterm_s=2.0).endswith(": a stop that took too long.")


@pytest.mark.parametrize("way", KILL_WAY.names)
@pytest.mark.parametrize("sender", [None, RUNC, WEB])
def test_each_way_and_sender_has_both_sentences(way: str, sender: Party | None) -> None:
    kill = replace(STOP, way=way, sender=sender)
    assert sentence(kill).startswith("Not an OOM kill: ")
    assert "web (pid 7)" in sentence(kill)
    assert sent_by(kill)


def test_end_of_the_parent_and_of_the_namespace_is_the_reason() -> None:
    bound = sent_by(replace(STOP, way="parent_death"))
    assert bound.endswith(", because its parent ended (PR_SET_PDEATHSIG)")
    assert by("sh", way="pid_namespace").endswith(
        "web (pid 7) got SIGKILL because sh (pid 9), the init of its pid namespace, ended."
    )


def test_process_that_kills_its_group_kills_itself_with_it() -> None:
    kill = replace(STOP, sender=WEB, way="group")
    assert sent_by(kill) == "sent by itself, with its process group"
    assert "web (pid 7) sent SIGKILL to itself, with its process group, 10 s after SIGTERM. " in sentence(
        kill
    )


def test_newest_sentences_come_first_escaped_and_the_rest_is_counted() -> None:
    hostile = replace(STOP, target=Party(8, "\x1b[31m\n"))
    shown = sentences([STOP, STOP, hostile], 1)
    assert "(pid 8)" in shown[0]
    assert all(line.isprintable() for line in shown)
    assert shown[1:] == ["2 more processes were ended by SIGKILL before that: --json lists all."]
    assert sentences([STOP], 1) == [sentence(STOP)]


def test_sentence_beside_kills_counts_the_senders_escaped() -> None:
    assert beside_kills([]) is None
    one = beside_kills([replace(STOP, sender=None)])
    assert one == "SIGKILL of others ended 1 more process (the kernel 1): --json lists them."
    senders = [replace(STOP, sender=Party(9, name)) for name in ("a", "b", "b", "c\n", "d")]
    many = beside_kills(senders)
    assert many == "SIGKILL of others ended 5 more processes (b 2, a 1, c\\n 1, others): --json lists them."
