"""The removal of the oldest traces, and what is never removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.directory import Directory
from tracer.trace import layout
from tracer.trace.write.writer import TraceWriter
from tracer.watch.place import Place, name_of

OpenPlace = Callable[..., Place]
BeginTrace = Callable[..., TraceWriter]
Publish = Callable[[Place, int], Path]

SECOND_NS = 1_000_000_000
NOON_NS = 1_795_694_400 * SECOND_NS  # 2026-11-26T12:00:00Z


def name_at(seconds: int) -> str:
    return name_of(NOON_NS + seconds * SECOND_NS, "kill", "web")


def kept(place: Place) -> list[str]:
    return sorted(os.listdir(place.path))  # noqa: PTH208  also hidden names


def test_retain_removes_the_oldest_beyond_the_number(open_place: OpenPlace, publish: Publish) -> None:
    place = open_place(keep_traces=2)
    paths = {seconds: publish(place, seconds) for seconds in (3, 1, 4, 2)}
    assert place.retain([]) == [paths[1], paths[2]]
    assert kept(place) == [name_at(3), name_at(4)]
    assert place.retain([]) == []


def test_retain_removes_the_oldest_beyond_the_size(open_place: OpenPlace, publish: Publish) -> None:
    place = open_place()
    sizes = [layout.size_bytes(publish(place, seconds)) for seconds in range(4)]
    place.close()
    place = open_place(max_disk_bytes=sizes[2] + sizes[3])
    place.retain([])
    assert kept(place) == [name_at(2), name_at(3)]
    place.close()
    place = open_place(max_disk_bytes=sizes[2] + sizes[3] - 1)
    place.retain([])
    assert kept(place) == [name_at(3)]


def test_retain_keeps_the_newest_trace_and_those_in_use(
    open_place: OpenPlace, publish: Publish, begin_trace: BeginTrace
) -> None:
    place = open_place(keep_traces=1, max_disk_bytes=1)
    writer = begin_trace(place.begin(name_at(0)))
    growing = place.publish(writer.path)
    for seconds in (1, 2, 3):
        publish(place, seconds)
    place.retain([growing])
    assert kept(place) == [name_at(0), name_at(3)]
    writer.close("quiet")
    place.retain([])
    assert kept(place) == [name_at(3)]


def test_retain_does_not_touch_or_count_what_is_not_of_watch(
    open_place: OpenPlace, publish: Publish, begin_trace: BeginTrace, tmp_path: Path, warnings: list[str]
) -> None:
    place = open_place(keep_traces=1)
    begin_trace(place.path / "my-recording").close("done")
    (place.path / "notes.txt").touch()
    (place.path / name_at(-1)).mkdir()  # no trace
    (place.path / name_at(-2)).symlink_to(tmp_path)
    (place.path / name_at(-3)).touch()
    noted = publish(place, -4)
    (noted / "note").touch()
    others = kept(place)
    publish(place, 1)
    assert place.retain([]) == []
    publish(place, 2)
    assert [path.name for path in place.retain([])] == [name_at(1)]
    assert kept(place) == sorted([*others, name_at(2)])
    assert warnings == []


def test_trace_that_cannot_be_removed_is_warned_about_once_and_not_counted(
    open_place: OpenPlace, publish: Publish, warnings: list[str]
) -> None:
    place = open_place(keep_traces=2)
    noted, *_ = [publish(place, seconds) for seconds in range(2)]
    place.retain([])
    (noted / "note").touch()
    publish(place, 2)
    for _ in range(3):
        assert place.retain([]) == []
    assert len(warnings) == 1
    assert f"{noted} holds 'note'" in warnings[0]
    assert kept(place) == [name_at(0), name_at(1), name_at(2)]


def test_killed_removal_leaves_no_part_of_a_trace(
    open_place: OpenPlace, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(keep_traces=1)
    for seconds in range(2):
        publish(place, seconds)

    class Died(BaseException):
        """A stand-in for SIGKILL."""

    def unlink(_: Directory, name: str) -> None:
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(Directory, "unlink", unlink)
        with pytest.raises(Died):
            place.retain([])
    assert kept(place) == [f".unfinished-{name_at(0)}", name_at(1)]
    place.sweep()
    assert kept(place) == [name_at(1)]


def test_retain_without_a_change_reads_no_trace(
    open_place: OpenPlace, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(keep_traces=100)
    for seconds in range(3):
        publish(place, seconds)
    os.utime(place.path, (0, 0))  # the last change is long ago
    place.retain([])

    def not_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(layout, "size_bytes", not_again)
    monkeypatch.setattr(os, "scandir", not_again)
    assert place.retain([]) == []
