"""When nothing is left that could explain the kills so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tracer.watch.place import Place
from tracer.watch.watching import Guest, Reporter, WatchOptions, _Watcher


class Quiet:
    """A `Reporter` that drops everything."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.mark.parametrize("busy", ["stories", "verdicts", "finishing"])
def test_kills_are_settled_once_when_no_part_of_watch_works_on_them(
    busy: str, open_place: Callable[..., Place]
) -> None:
    settled: list[bool] = []
    place = open_place()
    guest = Guest(lambda *_: None, settled=lambda: settled.append(True))
    watcher: Any = _Watcher(WatchOptions(place.path), cast(Reporter, Quiet()), place, guest)
    watcher._has_begun = True
    watcher._stories = SimpleNamespace(trigger=lambda _: None, is_active=busy == "stories")
    watcher._verdicts = SimpleNamespace(add=lambda *_: None, is_active=busy == "verdicts")
    watcher._finishing = SimpleNamespace(due_s=1e9 if busy == "finishing" else math.inf)
    assert not watcher._can_settle()
    watcher.killed({"kill_id": 1, "cgroup_id": 7, "limit_owner_cgroup_id": 7, "time": 1}, "web")
    assert not watcher._can_settle()
    watcher._stories.is_active = watcher._verdicts.is_active = False
    watcher._finishing.due_s = math.inf
    assert watcher._can_settle()
    watcher._settle()
    assert settled == [True]
    assert not watcher._can_settle()
