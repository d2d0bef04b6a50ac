"""Children that serve requests, and their ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tracer.kernel.process import children
from tracer.kernel.process.asked_child import AskedChild


def work(request: Any) -> Iterator[dict[str, Any]]:
    while request == "endless":
        os.getppid()
    yield {"pid": os.getpid()}


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the signals that are sent from here on, which are sent all the same."""
    sent: list[tuple[int, int]] = []

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def kill(pid: int, number: int) -> None:
            sent.append((pid, number))
            os.kill(pid, number)

    monkeypatch.setattr(children, "os", Os())
    return sent


def idle_child() -> tuple[AskedChild, int]:
    """Return a child that has done its work, and its pid."""
    child = AskedChild(work, within_s=60, is_urgent=False)
    [answer] = child.answered("once") or []
    return child, answer["pid"]


def is_collected(pid: int) -> bool:
    """Return whether a process has ended, and its parent has asked for its exit status."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_idle_child_ends_without_a_signal(kills: list[tuple[int, int]]) -> None:
    """`watch` reports every SIGKILL of the machine, so its own work must not send any."""
    child, pid = idle_child()
    child.close()
    assert kills == []
    with suppress(ChildProcessError):  # it was collected at once
        os.waitpid(pid, 0)
    assert is_collected(pid)


def test_signals_for_the_parent_do_nothing_in_the_child() -> None:
    """The interpreter would write them to a descriptor of the parent, whose number the child uses anew."""

    def seen(_: Any) -> Iterator[dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGUSR1)
        yield {"wakeup_fd": signal.set_wakeup_fd(-1)}

    ours, wake = socket.socketpair()
    wake.setblocking(False)
    handler, descriptor = signal.signal(signal.SIGUSR1, lambda *_: None), signal.set_wakeup_fd(wake.fileno())
    try:
        child = AskedChild(seen, within_s=60, is_urgent=False)
        assert child.answered("once") == [{"wakeup_fd": -1}]
        child.close()
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGUSR1, handler)
        ours.close()
        wake.close()


def test_busy_child_is_killed(kills: list[tuple[int, int]]) -> None:
    child = AskedChild(work, within_s=0.01, is_urgent=False)
    assert child.answered("endless") is None
    child.close()
    [(pid, number)] = kills
    assert number == signal.SIGKILL
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    assert is_collected(pid)


def test_child_that_ends_late_is_collected_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each process whose functions a recorder has named would leave a zombie."""
    child, pid = idle_child()
    with monkeypatch.context() as late:
        late.setattr(children, "_is_there", lambda _: True)
        child.close()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not is_collected(pid)
    children.collect_ended()
    assert is_collected(pid)
