"""The place at a URL: which are accepted, what is shown of them, and files that appear whole."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.storing.folder_server import FolderServer
from support.storing.object_store import ObjectStore

from tracer.errors import UsageError
from tracer.fleet.pushing import target
from tracer.fleet.pushing.target import Target, TargetError


@pytest.mark.parametrize("url", ["s3:/bucket", "bucket/traces", "", "./x", "C:\\x", "nope://x", "1s://x"])
def test_what_is_no_known_url_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match=r"give (?:one|another)"):
        Target(url)


def test_protocol_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(TargetError, match=r"s3://bucket: .*s3fs"):
        Target("s3://bucket")


def test_bucket_that_does_not_exist_is_no_empty_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store(ObjectStore):
        protocol = ("s3", "s3a")

        def find(self, path: str, *_: Any, **__: Any) -> Any:
            if "oom" not in path:
                raise FileNotFoundError("The specified bucket does not exist")
            return {}

    monkeypatch.setitem(vars(sys.modules["fsspec.registry"])["_registry"], "s3", Store)
    assert Target("s3://oom/traces").list("") == {}
    with pytest.raises(TargetError, match="cannot use s3://omo/traces: The specified bucket does not exist"):
        Target("s3://omo/traces").list("")


def test_missing_fsspec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(TargetError, match=r"pip install 'memcg-tracer\[fleet\]'"):
        Target("file:///x")


@given(st.binary(min_size=1).map(os.fsdecode), st.binary(min_size=1).map(os.fsdecode))
def test_encoded_names_are_plain_and_stay_different(one: str, other: str) -> None:
    assert set(target.encoded(one)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~%"
    )
    assert (target.encoded(one) == target.encoded(other)) == (one == other)


def test_names_of_traces_are_not_changed_by_encoding() -> None:
    assert target.encoded("20261127T012352Z-kill-web_1.2") == "20261127T012352Z-kill-web_1.2"


def test_reader_of_a_file_target_sees_a_file_whole(tmp_path: Path) -> None:
    place = Target(f"file://{tmp_path}/at")
    seen: set[str] = set()

    def chunks() -> Iterator[bytes]:
        for letter in b"a", b"b":
            seen.update(path.name for path in (tmp_path / "at/web").iterdir())
            yield letter * 100

    place.put("web/x.parquet", 200, chunks)
    assert {name[:8] for name in seen} == {".upload-"}
    assert place.list("web") == {"x.parquet": 200}
    place.put("web/x.parquet", 1, lambda: [b"c"])
    assert place.read("web/x.parquet", 10) == b"c"


def test_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    place = Target(str(tmp_path))

    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise PermissionError("no")

    with pytest.raises(TargetError):
        place.put("web/x.parquet", 1, chunks)
    assert list((tmp_path / "web").iterdir()) == []


def test_leftovers_of_killed_pushers_are_neither_listed_nor_kept(tmp_path: Path) -> None:
    place = Target(str(tmp_path))
    (tmp_path / "web/charge").mkdir(parents=True)
    for name in ("web/.upload-0123456789abcdef.tmp", "web/charge/.upload-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "web/.upload-mine").write_bytes(b"")
    assert place.list("web") == {".upload-mine": 0}
    place.clear_temporary("web")
    assert sorted(path.name for path in (tmp_path / "web").rglob("*")) == [".upload-mine", "charge"]


def test_large_object_appears_only_when_it_is_complete(store: type[ObjectStore]) -> None:
    place = Target("memory://bucket")
    size_bytes = (32 << 20) + 1

    def chunks(broken: bool) -> list[bytes]:
        if broken:
            raise PermissionError("no")
        return [bytes(1 << 20)] * 32 + [b"x"]

    place.put("web/x.parquet", size_bytes, lambda: chunks(False))
    assert place.list("web") == {"x.parquet": size_bytes}


def test_place_without_files_is_empty(store: type[ObjectStore]) -> None:
    place = Target("memory://bucket/")
    assert place.list("nothing") == {}
    assert place.read("nothing/meta.json", 10) is None
    place.remove("nothing/meta.json")
    assert place.url_of("a") == "memory://bucket/a"


def test_missing_package_of_a_protocol_is_named_to_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(TargetError, match=r": pip install gcsfs$"):
        Target("gs://bucket")


def test_folder_that_cannot_be_listed_is_never_taken_for_empty(folders: type[FolderServer]) -> None:
    folders.files |= {"/top/web/meta.json": b"{}", "/top/web/charge/1.parquet": b"rows"}
    place = Target("folders://top")
    for folder in ("/top/web", "/top/web/charge"):
        folders.failures[folder] = [ConnectionResetError()]
        assert place.list("web") == {"meta.json": 2, "charge/1.parquet": 4}
        folders.failures[folder] = [ConnectionResetError("no answer")] * 6
        with pytest.raises(TargetError, match=f"cannot use folders://{folder[1:]}: no answer"):
            place.list("web")


def test_connection_that_broke_is_made_anew(folders: type[FolderServer]) -> None:
    folders.files["/top/web/meta.json"] = b"{}"
    place = Target("folders://top")
    assert place.list("web")
    broken = FolderServer.current()
    folders.failures["/top/web"] = [OSError("Socket is closed")]
    assert place.list("web")
    assert FolderServer.current() is not broken


def test_each_thread_has_a_connection_of_its_own(folders: type[FolderServer]) -> None:
    folders.files["/top/web/meta.json"] = b"{}"
    place = Target("folders://top")
    together = threading.Barrier(2)

    def list_twice(_: int) -> None:
        for _ in range(2):
            together.wait()
            assert place.list("web") == {"meta.json": 2}

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(list_twice, range(2)))
    connections, users = zip(*folders.users, strict=True)
    assert len(set(connections)) == len(set(users)) == len(folders.users) == 2


def test_copy_for_another_process_connects_anew(folders: type[FolderServer]) -> None:
    folders.files["/top/web/meta.json"] = b"{}"
    place = Target("folders://top", wait=lambda _: pytest.fail("it waits"))
    assert place.list("web")
    assert pickle.loads(pickle.dumps(place)).list("web") == {"meta.json": 2}


def test_chain_that_ends_with_a_path_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("web/meta.json", "{}")
    assert Target(f"zip://::{tmp_path}/x.zip").list("") == {"web/meta.json": 2}
