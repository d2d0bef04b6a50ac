"""The directory of traces: who may use it, how a trace gets its name, and which traces are removed."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import TraceError
from tracer.trace import layout
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter
from tracer.watch.place import Place, TraceName, name_of, parse_name

OpenPlace = Callable[..., Place]
Publish = Callable[[Place, int], Path]
BeginTrace = Callable[..., TraceWriter]

SECOND_NS = 1_000_000_000
NOON_NS = 1_795_694_400 * SECOND_NS  # 2026-11-26T12:00:00Z
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")

HOLDER = """
import sys
from pathlib import Path
from tracer.watch.place import Place
place = Place(Path(sys.argv[1]), keep_traces=None, max_disk_bytes=None, warn=print)
print("locked", flush=True)
sys.stdin.read()
"""


def name_at(seconds: int) -> str:
    return name_of(NOON_NS + seconds * SECOND_NS, "kill", "web")


def kept(place: Place) -> list[str]:
    return sorted(os.listdir(place.path))  # noqa: PTH208  also hidden names


# Names


def test_name_has_time_reason_and_subject() -> None:
    assert name_of(NOON_NS + 999_999_999, "kill", "web") == "20261126T120000Z-kill-web"


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("/docker/4f2a", "docker_4f2a"),
        ("../../etc", ".._.._etc"),
        ("a\nb\x1b[2Jc", "a_b_2Jc"),
        ("gr\u00f6\u00dfe \u202e", "gr_e"),
        ("", "unknown"),
        ("\ud800", "unknown"),
        ("x" * 300, "x" * 60),
    ],
)
def test_name_of_hostile_subject_is_plain(subject: str, shown: str) -> None:
    assert name_of(NOON_NS, "kill", subject) == f"20261126T120000Z-kill-{shown}"


@given(
    time_ns=st.integers(0, 4_000_000_000 * SECOND_NS),
    reason=st.sampled_from(["kill", "limit", "soon", "signal"]),
    subject=st.text(),
)
def test_any_name_is_parsed_and_is_one_part_of_a_path(time_ns: int, reason: str, subject: str) -> None:
    name = name_of(time_ns, reason, subject)
    found = parse_name(name)
    assert found == TraceName(time_ns // SECOND_NS * SECOND_NS, reason, name.split("-", 2)[2])
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name)
    assert parse_name(f"{name}-2") is not None


@pytest.mark.parametrize(
    "name", ["20261126T120000Z-kill", "20269926T120000Z-kill-web", "notes", ".unfinished-x", "", "lost+found"]
)
def test_other_names_are_not_parsed(name: str) -> None:
    assert parse_name(name) is None


# The directory


def test_absent_directory_is_made_private(open_place: OpenPlace, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = open_place(tmp_path / "var/lib/traces")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o755


@as_root
def test_directory_of_another_user_raises(open_place: OpenPlace, tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    os.chown(tmp_path / "traces", NOBODY, NOBODY)
    with pytest.raises(TraceError, match=f"belongs to user {NOBODY}, .*: choose another place"):
        open_place()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o722])
def test_directory_that_others_can_write_to_raises(open_place: OpenPlace, tmp_path: Path, mode: int) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces").chmod(mode)
    with pytest.raises(TraceError, match=r"other users can write to .*chmod go-w") as raised:
        open_place()
    assert "\n" not in str(raised.value)


def test_link_to_directory_raises(open_place: OpenPlace, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "traces").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TraceError, match="is a symbolic link"):
        open_place()


def test_file_in_place_of_directory_raises(open_place: OpenPlace, tmp_path: Path) -> None:
    (tmp_path / "traces").touch()
    with pytest.raises(TraceError, match="exists and is not a directory: choose another place"):
        open_place()
    with pytest.raises(TraceError, match=r"cannot use .*: choose another place"):
        open_place(tmp_path / "traces/below")


def test_second_watch_is_refused_until_the_first_ends(open_place: OpenPlace, tmp_path: Path) -> None:
    path = tmp_path / "traces"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(TraceError, match=f"the watch with pid {first.pid}: stop that one first"):
            open_place()
        first.kill()
    open_place().close()
    open_place()


# Publication


def test_published_trace_has_its_name_and_grows(
    open_place: OpenPlace, begin_trace: BeginTrace, tmp_path: Path
) -> None:
    place = open_place()
    unfinished = place.begin(name_at(0))
    assert unfinished == tmp_path / "traces" / f".unfinished-{name_at(0)}"
    writer = begin_trace(unfinished)
    published = place.publish(unfinished)
    assert published == tmp_path / "traces" / name_at(0)
    assert Trace(published).rows("oom") == 1
    writer.append("oom", Trace(published).table("oom"))
    writer.close("quiet")
    assert Trace(published).rows("oom") == 2
    assert kept(place) == [name_at(0)]


def test_equal_names_get_numbers(open_place: OpenPlace, publish: Publish) -> None:
    place = open_place()
    first, second = place.begin("a"), place.begin("a")
    assert first != second
    assert {place.publish(second), place.publish(first)} == {place.path / "a", place.path / "a-2"}
    assert [publish(place, 0).name for _ in range(3)] == [name_at(0), f"{name_at(0)}-2", f"{name_at(0)}-3"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/nowhere")])
def test_publish_replaces_nothing(open_place: OpenPlace, make: Callable[[Path], None]) -> None:
    place = open_place()
    make(place.path / "a")
    inode = (place.path / "a").lstat().st_ino
    assert place.publish(place.begin("a")) == place.path / "a-2"
    assert (place.path / "a").lstat().st_ino == inode


def test_publish_waits_for_the_disk_before_the_rename(
    open_place: OpenPlace, begin_trace: BeginTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place()
    writer = begin_trace(place.begin(name_at(0)))
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, (place.path / name_at(0)).exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    place.publish(writer.path)
    *before, last = synced
    names = {name for name, _ in before}
    journals = {f"{table}.1.arrows" for table in ("cgroups", "tasks", "charge", "oom")}
    assert {layout.META, layout.JOURNAL, writer.path.name} | journals <= names
    assert not any(is_published for _, is_published in before)
    assert last == ("traces", True)


def test_full_disk_leaves_the_trace_unfinished_for_another_try(
    open_place: OpenPlace, begin_trace: BeginTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place()
    writer = begin_trace(place.begin(name_at(0)))

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            place.publish(writer.path)
    assert kept(place) == [writer.path.name]
    assert place.publish(writer.path).name == name_at(0)


def test_begin_on_a_full_disk_raises(open_place: OpenPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place()

    def mkdir(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "mkdir", mkdir)
        with pytest.raises(OSError, match="No space left"):
            place.begin("a")
    assert place.begin("a").is_dir()


# The start after a killed watch


def test_sweep_removes_what_was_begun_and_returns_what_is_not_completed(
    open_place: OpenPlace, begin_trace: BeginTrace, publish: Publish, warnings: list[str]
) -> None:
    place = open_place()
    complete = publish(place, 3)
    late, early = (place.publish(begin_trace(place.begin(name_at(at))).path) for at in (2, 1))
    begin_trace(place.begin(name_at(4)))._trace.close()  # the writer's process has ended
    place.begin("empty")
    (place.begin("torn") / layout.META).write_text("{")
    place.close()
    again = open_place()
    assert again.sweep() == [early, late]
    assert kept(again) == [early.name, late.name, complete.name]
    assert warnings == []


def test_sweep_leaves_a_locked_and_a_foreign_directory(
    open_place: OpenPlace, begin_trace: BeginTrace, tmp_path: Path, warnings: list[str]
) -> None:
    place = open_place()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    locked = begin_trace(place.begin("locked"))
    (place.path / ".unfinished-link").symlink_to(precious)
    (place.path / ".unfinished-notes").mkdir()
    (place.path / ".unfinished-notes/mine").touch()
    (place.path / ".unfinished-file").touch()
    before = kept(place)
    assert place.sweep() == []
    assert kept(place) == before
    assert Trace(locked.path).rows("oom") == 1
    assert (precious / "file").exists()
    assert len(warnings) == 4
    assert any("holds 'mine', which is no part of a trace" in line for line in warnings)
    assert any(f"by the recorder with pid {os.getpid()}" in line for line in warnings)


# A directory that is exchanged


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_begin_in_an_exchanged_directory_makes_a_new_one(
    open_place: OpenPlace, publish: Publish, tmp_path: Path, warnings: list[str], how: str
) -> None:
    place = open_place(keep_traces=1)
    publish(place, 0)
    place.path.rename(tmp_path / "moved")
    if how == "removed":
        subprocess.run(["rm", "-r", tmp_path / "moved"], check=True)
    elif how == "replaced":
        place.path.mkdir(0o700)
    place.retain([])
    published = publish(place, 1)
    assert published.parent == place.path
    assert len(warnings) == 1
    assert "was removed or replaced" in warnings[0]
    with pytest.raises(TraceError, match="stop that one first"):
        open_place()
    assert not place.renew()
    assert (tmp_path / "moved").exists() == (how != "removed")


def test_renew_refuses_a_link_that_was_put_there(open_place: OpenPlace, tmp_path: Path) -> None:
    place = open_place()
    place.path.rename(tmp_path / "moved")
    place.path.symlink_to(tmp_path / "moved")
    with pytest.raises(TraceError, match="is a symbolic link"):
        place.begin("a")
    place.path.unlink()
    (tmp_path / "moved").rename(place.path)
    assert place.begin("a").is_dir()


def test_publish_of_a_trace_that_was_removed_raises(open_place: OpenPlace) -> None:
    place = open_place()
    unfinished = place.begin("a")
    unfinished.rmdir()
    with pytest.raises(FileNotFoundError):
        place.publish(unfinished)
