"""Traces and datasets below paths and URLs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.storing.folder_server import FolderServer
from support.storing.object_store import ObjectStore

from tracer.errors import TraceError, TracerError
from tracer.fleet.reduction.inputs import find


def make(folder: Path, marker: str = "meta.json") -> Path:
    folder.mkdir(parents=True)
    (folder / marker).write_text("{}")
    return folder


def shown(places: object) -> list[str]:
    assert isinstance(places, list)
    return [place.shown for place in places]


def test_traces_and_datasets_are_found_at_any_depth(tmp_path: Path) -> None:
    traces = [make(tmp_path / "a"), make(tmp_path / "hosts/node-1/x"), make(tmp_path / "hosts/node-2/y")]
    dataset = make(tmp_path / "week", "dataset.json")
    found = find([str(tmp_path)])
    assert shown(found.traces) == [str(path) for path in traces]
    assert shown(found.datasets) == [str(dataset)]
    assert (found.empty, found.unreadable) == ([], [])


def test_nothing_is_looked_for_inside_of_a_trace_or_a_dataset(tmp_path: Path) -> None:
    make(make(tmp_path / "a") / "journal")
    make(make(tmp_path / "week", "dataset.json") / "raw")
    found = find([str(tmp_path)])
    assert (shown(found.traces), shown(found.datasets)) == ([str(tmp_path / "a")], [str(tmp_path / "week")])


def test_a_trace_that_is_named_twice_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert shown(find(["a", str(tmp_path), f"file://{tmp_path}"]).traces) == ["a"]


def test_links_are_followed_only_if_they_are_named(tmp_path: Path) -> None:
    make(tmp_path / "real/a")
    (tmp_path / "real/circle").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert shown(find([str(tmp_path / "link")]).traces) == [str(tmp_path / "link/a")]
    assert shown(find([str(tmp_path)]).traces) == [str(tmp_path / "real/a")]


def test_folder_with_a_dot_is_looked_at_only_if_it_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a")
    begun = make(tmp_path / ".begun")
    make(tmp_path / ".removed/b")
    assert shown(find([str(tmp_path)]).traces) == [str(tmp_path / "a")]
    assert shown(find([str(begun)]).traces) == [str(begun)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("a", ".begun", ".removed/b"):
            archive.writestr(f"{name}/meta.json", "{}")
    assert [place.path for place in find([f"zip://::{tmp_path}/all.zip"]).traces] == ["a"]


def test_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nowhere does not exist"):
        find([str(tmp_path / "nowhere")])
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match="file is not a directory"):
        find([str(tmp_path / "file")])


def test_folder_without_a_trace_is_empty(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "none").mkdir()
    found = find([str(tmp_path / "a"), str(tmp_path / "none")])
    assert (shown(found.traces), found.empty) == ([str(tmp_path / "a")], [str(tmp_path / "none")])


def test_folder_that_may_not_be_listed_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a")
    make(tmp_path / "secret/b")
    real = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find([str(tmp_path)])
    assert shown(found.traces) == [str(tmp_path / "a")]
    assert found.unreadable == [(str(tmp_path / "secret"), "Permission denied")]


def test_traces_behind_a_url_are_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("hosts/a/meta.json", "hosts/a/sub/meta.json", "hosts/ab/meta.json", "week/dataset.json"):
            archive.writestr(name, "{}")
    found = find([f"zip://::{tmp_path}/all.zip"])
    assert [place.path for place in found.traces] == ["hosts/a", "hosts/ab"]
    assert [place.path for place in found.datasets] == ["week"]
    assert found.traces[0].target is not None


@pytest.mark.parametrize("url", ["nosuch://x/y", "zip://::/nowhere.zip"])
def test_url_that_cannot_be_read_is_an_error_of_one_line(url: str) -> None:
    with pytest.raises(TracerError, match=f"cannot use {url}: ") as error:
        find([url])
    assert "\n" not in str(error.value)


def test_error_of_the_client_of_a_store_is_one_line_without_the_password(store: type[ObjectStore]) -> None:
    def refuse(_operation: str, _path: str) -> None:
        raise PermissionError("Unable to locate\n credentials for sftp://me:secret@host/")

    store.before = staticmethod(refuse)
    with pytest.raises(TracerError) as raised:
        find(["memory://bucket/traces"])
    assert str(raised.value) == (
        "cannot use memory://bucket/traces: Unable to locate credentials for sftp://me:***@host/"
    )


def test_folder_behind_a_url_that_may_not_be_listed_is_unreadable(folders: type[FolderServer]) -> None:
    folders.files |= {"/top/a/meta.json": b"{}", "/top/secret/b/meta.json": b"{}"}
    folders.failures["/top/secret"] = [PermissionError(13, "Permission denied")]
    found = find(["folders://top"])
    assert shown(found.traces) == ["folders://top/a"]
    assert found.unreadable == [
        ("folders://top/secret", "cannot use folders://top/secret: Permission denied")
    ]


def test_folder_that_cannot_be_listed_for_a_moment_is_not_left_out(folders: type[FolderServer]) -> None:
    folders.files |= {"/top/a/meta.json": b"{}", "/top/b/c/meta.json": b"{}"}
    folders.failures |= {path: [ConnectionResetError(), TimeoutError()] for path in ("/top", "/top/b")}
    found = find(["folders://top"])
    assert shown(found.traces) == ["folders://top/a", "folders://top/b/c"]
    assert (found.unreadable, folders.failures) == ([], {"/top": [], "/top/b": []})


def test_pipe_with_the_name_of_a_marker_is_no_dataset(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset.json")
    assert find([str(tmp_path)]).datasets == []
