"""Stories on a disk that is full for a time: no kill that the history still has is lost."""

from __future__ import annotations

import gc
import resource
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from synthetic.unset import unset_row

from tracer.schema import TABLES
from tracer.trace.history.history import History
from tracer.trace.meta import begin
from tracer.trace.read.reader import Trace
from tracer.trace.recording_ends import WRITE_FAILED
from tracer.trace.write import backlog
from tracer.trace.write.writer import TraceWriter
from tracer.watch import stories
from tracer.watch.finishing import Finishing, Told
from tracer.watch.place import Place
from tracer.watch.stories import KILL, Stories, Trigger

S: Final = 1_000_000_000
NOON_NS: Final = 1_795_694_400 * S

OpenPlace = Callable[..., Place]


class Queue(Finishing):
    """Takes traces, and completes none."""

    def __init__(self) -> None:
        super().__init__((), lambda _: None, lambda _: None)
        self.added: list[Told] = []

    def add(self, story: Told) -> None:
        self.added.append(story)


class Scene:
    """Stories of a history, and what they gave to the queue."""

    def __init__(self, place: Place, warnings: list[str]) -> None:
        meta = begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
        self.history = History(meta, keep_ns=300 * S, most_bytes=1 << 30)
        self.queue = Queue()
        self.stories = Stories(
            self.history, place, self.queue, closing_facts=lambda: {"cost": {}}, warn=warnings.append
        )

    def kill(self, number: int) -> None:
        """Have a kill come: its row, and the trigger."""
        row: dict[str, Any] = {"time": NOON_NS + number * S, "kill_id": number, "comm": f"victim-{number}"}
        self.history.append("oom", pa.Table.from_pylist([unset_row("oom") | row], schema=TABLES["oom"]))
        self.stories.trigger([Trigger(KILL, NOON_NS + number * S, None, frozenset([number]))])


@pytest.fixture
def scene(open_place: OpenPlace, warnings: list[str]) -> Scene:
    return Scene(open_place(), warnings)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let each write of a file fail with EFBIG (Python ignores SIGXFSZ), as on a full disk with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kills_in(trace: Path) -> list[str]:
    comms: list[str] = Trace(trace).table("oom", ["comm"])["comm"].to_pylist()
    return comms


def test_kill_during_a_full_disk_is_in_the_next_story(
    scene: Scene, warnings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "_FAILS_S", 0.0)
    monkeypatch.setattr(stories, "_RETRY_S", 0.0)
    scene.kill(1)
    scene.stories.step()
    (first,) = scene.stories.in_use
    with full_disk():
        scene.kill(2)
        scene.stories.flush()
        scene.stories.step()
        assert [told.trace for told in scene.queue.added] == [first]
        scene.stories.step()
        assert scene.stories.in_use == []
        assert scene.stories.is_active
        assert list((tmp_path / "traces").iterdir()) == [first], "what was begun is removed"
    assert kills_in(first) == ["victim-1"]
    scene.stories.step()
    scene.stories.close("SIGTERM")
    assert kills_in(scene.queue.added[1].trace) == ["victim-1", "victim-2"]
    assert [warning.partition(" ")[0] for warning in warnings] == ["cannot", "cannot", "a", "traces"]


def test_story_that_cannot_be_written_leaves_no_rows_in_memory(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that refers to itself by its frames would keep them until a collection of garbage."""
    monkeypatch.setattr(stories, "_FAILS_S", 0.0)
    monkeypatch.setattr(stories, "_RETRY_S", 0.0)
    scene.kill(1)
    scene.stories.step()
    assert scene.stories._story is not None
    writers = [weakref.ref(scene.stories._story.writer)]
    monkeypatch.setattr(
        stories, "TraceWriter", lambda *given, **named: seen(writers, TraceWriter(*given, **named))
    )
    gc.disable()
    try:
        with full_disk():
            scene.kill(2)
            scene.stories.flush()
            for _ in range(3):
                scene.stories.step()
        assert [writer() for writer in writers] == [None] * len(writers)
    finally:
        gc.enable()


def seen(writers: list[weakref.ref[TraceWriter]], writer: TraceWriter) -> TraceWriter:
    writers.append(weakref.ref(writer))
    return writer


def test_last_kill_before_quiet_on_a_full_disk_is_in_the_next_story(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "QUIET_S", -1.0)
    monkeypatch.setattr(stories, "_RETRY_S", 0.0)
    scene.kill(1)
    scene.stories._begin(0.0)
    with full_disk():
        scene.kill(2)
        scene.stories.flush()
        scene.stories.step()
    scene.stories.close("SIGTERM")
    assert [len(kills_in(told.trace)) for told in scene.queue.added] == [1, 2]


def test_kill_that_found_no_room_in_memory_is_in_the_next_story(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has room again before the story ends, and its rows are written but for those of the kill."""
    monkeypatch.setattr(stories, "_FAILS_S", 0.0)
    monkeypatch.setattr(stories, "_HELD_BYTES", 0)
    monkeypatch.setattr(backlog, "_LONGEST_RETRY_S", 0.0)
    scene.kill(1)
    scene.stories.step()
    with full_disk():
        scene.kill(2)
        scene.stories.flush()
        scene.kill(3)
    scene.stories.flush()
    scene.stories.step()
    scene.stories.step()
    scene.stories.close("SIGTERM")
    first, second = (kills_in(told.trace) for told in scene.queue.added)
    assert first == ["victim-1", "victim-2"]
    assert "victim-3" in second


def test_story_that_is_written_leaves_no_trigger(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "QUIET_S", -1.0)
    scene.kill(1)
    scene.stories.step()
    assert not scene.stories.is_active
    (told,) = scene.queue.added
    assert kills_in(told.trace) == ["victim-1"]
    assert Trace(told.trace).meta["end_reason"] != WRITE_FAILED
