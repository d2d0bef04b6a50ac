"""The ends of processes that the kernel killed."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("exited", "is_there"),
    [
        (1.9999, True),  # ended between the signal and the report on the kill
        (2.001, True),
        (1.5, False),  # another end
    ],
)
def test_victim_has_not_ended_before_its_kill(trace: Any, exited: float, is_there: bool) -> None:
    trace.add("tasks", tgid=41, comm="java", first_seen=trace.ns(1), exited=trace.ns(exited))
    trace.add("oom", 2, kill_id=1, tgid=41, pid=41)
    found = trace.processes.exited_at(41, trace.ns(0), trace.ns(2))
    assert found == (None if is_there else trace.ns(exited))
