"""The recorder's scheduling: real-time while it uses little CPU, normal while it uses much."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracer.kernel.process.priority import Favour, HeadStart, Urgency, prefer_this_thread, put_first

pytestmark = pytest.mark.alone

NICE = max(5, os.getpriority(os.PRIO_PROCESS, 0))  # only root may give itself a lower one


def in_a_thread(look: Callable[[], Any]) -> Any:
    """Return the result of `look` in a thread, with which its scheduling ends."""
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(look()))
    thread.start()
    thread.join()
    return seen[0]


def policy() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def is_real_time_permitted() -> bool:
    with Urgency() as urgency:
        return urgency.is_real_time


permitted = pytest.mark.skipif(
    not in_a_thread(is_real_time_permitted), reason="needs the right to real-time scheduling"
)


def schedule() -> tuple[int, int]:
    return policy(), os.getpriority(os.PRIO_PROCESS, 0)


@permitted
def test_urgency_lasts_while_little_cpu_is_used_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is no reason to leave it. What uses more has a lower nice value: it must run beside others."""
    now_s, cpu_s = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(time, "thread_time", lambda: cpu_s[0])

    def look() -> list[tuple[int, int]]:
        before = schedule()
        with Urgency() as urgency:
            seen = [schedule()]
            for elapsed_s, used_s in ((0.2, 0.2), (0.9, 0.3), (1.0, 0.6), (0.2, 0.0), (0.9, 0.2)):
                now_s[0] += elapsed_s
                cpu_s[0] += used_s
                urgency.adjust()
                seen.append(schedule())
        assert schedule() == before
        return seen

    at_once, beside_others, again = (os.SCHED_RR, 0), (os.SCHED_OTHER, -10), (os.SCHED_RR, -10)
    assert in_a_thread(look) == [*[at_once] * 3, *[beside_others] * 2, again]


@permitted
def test_urgency_children_are_normal() -> None:
    def look() -> int:
        with Urgency():
            child = os.fork()
            if child == 0:
                os._exit(policy() + 100 * os.getpriority(os.PRIO_PROCESS, 0))
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_a_thread(look) == os.SCHED_OTHER


def test_urgency_positive_nice_is_kept() -> None:
    def look() -> tuple[bool, int, int]:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        with Urgency() as urgency:
            prefer_this_thread()
            urgency.adjust()
            return urgency.is_real_time, policy(), os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_thread(look) == (False, os.SCHED_OTHER, NICE)


def test_urgency_without_permission_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    def look() -> tuple[bool, int, int]:
        with Urgency() as urgency:
            urgency.adjust()
            return urgency.is_real_time, policy(), os.getpriority(os.PRIO_PROCESS, 0)

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    assert in_a_thread(look) == (False, os.SCHED_OTHER, nice)


POLICY_OF_A_CHILD = """
import os, sys
sys.stdin.readline()
child = os.fork()
if not child:
    os._exit(os.sched_getscheduler(0))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@permitted
@pytest.mark.parametrize(("nice", "expected"), [(0, os.SCHED_RR), (5, os.SCHED_OTHER)])
def test_put_first_counts_for_children_unless_nice_is_positive(nice: int, expected: int) -> None:
    command = [sys.executable, "-c", POLICY_OF_A_CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        put_first(process.pid)
        process.communicate(b"\n")
    assert process.returncode == expected


def test_put_first_without_permission_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    def look() -> int:
        put_first(0)
        return policy()

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert in_a_thread(look) == os.SCHED_OTHER


def is_better_nice_permitted() -> bool:
    with HeadStart():
        return os.getpriority(os.PRIO_PROCESS, 0) < 0


@pytest.mark.skipif(not in_a_thread(is_better_nice_permitted), reason="needs the right to a better nice")
@pytest.mark.parametrize("before", [0, -3])
def test_head_start_restores_nice(before: int) -> None:
    def look() -> list[int]:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        seen = []
        head_start = HeadStart()
        seen.append(os.getpriority(os.PRIO_PROCESS, 0))
        for _ in range(2):
            head_start.end()
            seen += [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
        return seen

    assert in_a_thread(look) == [-10, before, os.SCHED_OTHER, before, os.SCHED_OTHER]


@pytest.mark.skipif(not in_a_thread(is_better_nice_permitted), reason="needs the right to a better nice")
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_head_start_counts_against_other_sessions() -> None:
    """Within its own session, a nice value has no effect on the others."""
    with subprocess.Popen(["sleep", "99"], start_new_session=True) as child:
        group = Path(f"/proc/{child.pid}/autogroup")
        before = group.read_text()
        with HeadStart(child.pid):
            assert group.read_text() == before.replace("nice 0", "nice -10")
        assert group.read_text() == before
        child.kill()


@pytest.mark.skipif(not in_a_thread(is_better_nice_permitted), reason="needs the right to a better nice")
def test_head_start_ends_for_threads_that_began_meanwhile() -> None:
    code = "import threading as t; input(); t.Thread(target=input).start(); print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        os.setpriority(os.PRIO_PROCESS, child.pid, 0)
        with HeadStart(child.pid):
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()
            tasks = [int(task.name) for task in Path(f"/proc/{child.pid}/task").iterdir()]
            assert [os.getpriority(os.PRIO_PROCESS, task) for task in tasks] == [-10, -10]
        assert [os.getpriority(os.PRIO_PROCESS, task) for task in tasks] == [0, 0]
        child.kill()


@pytest.mark.parametrize("before", [5, -15])
def test_head_start_chosen_nice_is_kept(before: int) -> None:
    def look() -> int:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, before)
        except PermissionError:
            return before
        with HeadStart():
            return os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_thread(look) == before


@pytest.mark.skipif(not in_a_thread(is_better_nice_permitted), reason="needs the right to a better nice")
def test_favour_lasts_while_little_cpu_is_used_and_new_threads_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])

    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    def look() -> list[int]:
        favour = Favour()
        seen = [in_a_thread(nice)]
        for elapsed_s, cpu_s in ((0.1, 0.1), (2.0, 0.7), (0.1, 0.7), (2.0, 0.8)):
            now_s[0] += elapsed_s
            favour.adjust(cpu_s)
            seen.append(in_a_thread(nice))
        return [nice() - seen[-1], *seen]

    assert in_a_thread(look) == [0, -20, -20, 0, 0, -20]


def test_favour_positive_nice_is_kept() -> None:
    def look() -> int:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        Favour().adjust(0.0)
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_thread(look) == NICE


def test_favour_without_permission_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    def look() -> int:
        favour = Favour()
        monkeypatch.setattr(time, "monotonic", lambda: 1e9)
        favour.adjust(1e9)
        return os.getpriority(os.PRIO_PROCESS, 0)

    monkeypatch.setattr(os, "setpriority", refuse)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert in_a_thread(look) == before
