"""Sentences about SIGKILLs that were not the OOM killer's."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.enumerations import KILL_WAY
from tracer.render.words.sigkill_words import (
    KNOWN_SENDERS,
    KnownSender,
    beside_kills,
    sent_by,
    sentence,
    sentences,
)

WEB = Party(7, "web", "/docker/1", "shop")
RUNC, SHIM = Party(9, "runc"), Party(4, "containerd-shim")
STOP = Sigkill(None, WEB, RUNC, (SHIM, Party(1, "systemd")), "pidfd", 10.0, 30 << 20, 100 << 20)


def by(comm: str, **changes: object) -> str:
    """Return the sentence for a sender of that name, a child of init, without a SIGTERM before."""
    kill = replace(STOP, sender=Party(9, comm), parents=(), since_sigterm_s=None, limit_bytes=None)
    return sentence(replace(kill, **changes))  # type: ignore[arg-type]


def test_stop_that_took_too_long_is_named_with_the_runtime_and_the_memory() -> None:
    assert sentence(STOP) == (
        "Not an OOM kill: runc (pid 9), child of containerd-shim (pid 4), sent SIGKILL to web (pid 7) in "
        "shop, 10 s after SIGTERM: a stop that took too long. Its cgroup used 30 MiB of 100 MiB (30.0 %). "
        "The runtime was asked to: a stop, a failed liveness probe or an eviction; `kubectl describe pod` "
        "or `docker events` has it."
    )
    assert "(95.0 %), near its limit. " in sentence(replace(STOP, usage_bytes=95 << 20))


@pytest.mark.parametrize("known", KNOWN_SENDERS, ids=lambda known: known.name)
def test_known_sender_is_explained_by_what_it_does_and_where_its_reason_is(known: KnownSender) -> None:
    comm = known.name.encode()[:15].decode()  # as the kernel has it
    said = f"{comm} (pid 9) sent SIGKILL to web (pid 7) in shop: {known.does}."
    assert by(comm) == f"Not an OOM kill: {said}{f' {known.advice}' * bool(known.advice)}"
    assert known.does[0] != known.does[0].upper() or known.does.startswith("systemd")
    assert not known.does.endswith(".") and known.advice[-1:] in ("", ".")


@pytest.mark.parametrize("comm", ["bash", "runcat", "timeouts", "systemd-oom", "containerd", ""])
def test_other_names_are_not_explained(comm: str) -> None:
    assert by(comm).endswith(" sent SIGKILL to web (pid 7) in shop.")


def test_stage_of_runc_is_runc() -> None:
    assert ": its container runtime killed it. The runtime was asked to: " in by("runc:[1:CHILD]")


def test_oom_killer_in_user_space_that_sent_sigterm_first_is_no_late_stop() -> None:
    assert "after SIGTERM: an OOM killer in user space" in by("earlyoom", since_sigterm_s=2.0)


def test_memory_pressure_just_before_is_said_beside_the_usage() -> None:
    kill = replace(STOP, pressure_share=0.814)
    assert " (30.0 %); just before, a task of it waited for memory 81 % of the time. " in sentence(kill)
    assert ". Just before, a task of its cgroup waited for memory 81 % of the time." in sentence(
        replace(kill, limit_bytes=None)
    )
    assert "waited" not in sentence(replace(STOP, pressure_share=0.0))


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
        "web (pid 7) in shop got SIGKILL because sh (pid 9), the init of its pid namespace, ended."
    )


def test_parent_that_is_a_child_itself_is_named_with_its_parent() -> None:
    bound = sentence(replace(STOP, way="parent_death", since_sigterm_s=None))
    parent = "its parent runc (pid 9), child of containerd-shim (pid 4), ended (PR_SET_PDEATHSIG). "
    assert f"web (pid 7) in shop got SIGKILL because {parent}" in bound


def test_time_and_the_last_name_of_the_cgroup_are_said() -> None:
    at = pd.Timestamp("2026-11-26T20:14:03.9Z")
    kill = replace(STOP, time=at, target=replace(WEB, container=None, cgroup="/user.slice/tests"))
    assert " sent SIGKILL to web (pid 7) in tests at 20:14:03 UTC, 10 s after SIGTERM" in sentence(kill)
    unknown = replace(kill, target=replace(WEB, container=None, cgroup=None))
    assert " sent SIGKILL to web (pid 7) at 20:14:03 UTC, 10 s after SIGTERM" in sentence(unknown)


def test_sender_in_another_container_has_its_name_and_one_in_the_same_has_none() -> None:
    agent = Party(9, "agent", "/docker/2", "node-agent")
    assert "agent (pid 9) in node-agent, child of " in sentence(replace(STOP, sender=agent))
    assert "agent (pid 9), child of " in sentence(replace(STOP, sender=replace(agent, container="shop")))


def test_process_that_kills_its_group_kills_itself_with_it() -> None:
    kill = replace(STOP, sender=WEB, way="group")
    assert sent_by(kill) == "sent by itself, with its process group"
    said = "web (pid 7) sent SIGKILL to itself in shop, with its process group, 10 s after SIGTERM. "
    assert said in sentence(kill)


def test_newest_sentences_come_first_escaped_and_the_rest_is_counted() -> None:
    hostile = replace(STOP, target=Party(8, "\x1b[31m\n"))
    shown = sentences([STOP, STOP, hostile], 1)
    assert "(pid 8)" in shown[0]
    assert all(line.isprintable() for line in shown)
    assert shown[1:] == ["2 more processes were ended by SIGKILL before that: --json lists all."]
    assert sentences([STOP], 1) == [sentence(STOP)]


def test_advice_for_several_kills_of_one_sender_comes_once() -> None:
    oomd = replace(STOP, sender=Party(3, "systemd-oomd"))
    shown = sentences([oomd, STOP, STOP], 3)
    assert [line.count("The runtime was asked to") for line in shown] == [1, 0, 0]
    assert [line.count("`oomctl`") for line in shown] == [0, 0, 1]


def test_sentence_beside_kills_counts_the_senders_escaped() -> None:
    assert beside_kills([]) is None
    one = beside_kills([replace(STOP, sender=None)])
    assert one == "SIGKILL of others ended 1 more process (the kernel 1): --json lists them."
    senders = [replace(STOP, sender=Party(9, name)) for name in ("a", "b", "b", "c\n", "d")]
    many = beside_kills(senders)
    assert many == "SIGKILL of others ended 5 more processes (b 2, a 1, c\\n 1, others): --json lists them."
    with_init = [replace(STOP, sender=Party(1, name), way="pid_namespace") for name in ("sh", "sh", "tail")]
    ended = beside_kills(with_init)
    assert ended == (
        "3 more processes ended with the init of their pid namespace (sh 2, tail 1): --json lists them."
    )
    one = beside_kills([senders[0], replace(senders[0], way="parent_death"), with_init[0]])
    assert one == (
        "SIGKILL of others ended 1 more process (a 1); 1 more process ended with its parent (a 1);"
        " 1 more process ended with the init of its pid namespace (sh 1): --json lists them."
    )
