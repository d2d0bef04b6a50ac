"""Functions that run in a child of the tracer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.process.children import call_in_child


def test_call_in_child_returns_what_the_function_returns() -> None:
    held: list[int] = []

    def work() -> dict[str, int]:
        held.append(1)
        return {"pid": os.getpid()}

    assert call_in_child(work)["pid"] != os.getpid()
    assert held == [], "nothing of it is left here"


def test_call_in_child_raises_the_error_of_the_function() -> None:
    def work() -> None:
        raise TracerError("the kernel refuses")

    with pytest.raises(TracerError, match=r"^the kernel refuses$"):
        call_in_child(work)


def test_call_in_child_that_is_killed_raises() -> None:
    children = Path("/proc/thread-self/children")
    before = children.read_text()
    with pytest.raises(TracerError, match="ended without an answer"):
        call_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert children.read_text() == before, "it was waited for"
