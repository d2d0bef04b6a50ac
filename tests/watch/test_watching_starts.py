"""The start of `watch`, when its probes are attached and the rest is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from synthetic.unset import unset_row

from tracer.trace.meta import Meta, begin
from tracer.watch.place import Place
from tracer.watch.watching import WatchOptions, _Watcher


class Told:
    """A reporter that keeps the kills."""

    def __init__(self) -> None:
        self.kills: list[dict[str, Any]] = []

    def killed(self, kill: dict[str, Any], _place: str) -> None:
        self.kills.append(kill)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_kill_while_the_probes_are_attached_begins_a_story(
    tmp_path: Path, open_place: Callable[..., Place]
) -> None:
    meta: Meta = begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
    told, place = Told(), open_place()
    watcher = _Watcher(WatchOptions(tmp_path, most_memory_bytes=1 << 40), told, place)
    watcher.open_sink(meta)
    kill = unset_row("oom") | {"time": meta["clock"]["realtime_ns"], "kill_id": 1, "cgroup_id": 7}
    watcher.killed(kill, "web")
    pipeline: Any = SimpleNamespace(programs=SimpleNamespace(run_ns=lambda: 0))
    watcher.begin(pipeline, [])
    watcher._step()
    assert told.kills == [kill]
    assert len(list(place.path.iterdir())) == 1
