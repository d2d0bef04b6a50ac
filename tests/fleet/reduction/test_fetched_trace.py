"""Traces behind URLs, copied for as long as they are read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from support.storing.folder_server import FolderServer

from tracer.errors import TraceError
from tracer.fleet.reduction.fetched_trace import local_trace
from tracer.fleet.reduction.inputs import Place, find


def zipped(path: Path, *names: str) -> Place:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    (place,) = find([f"zip://::{path}"]).traces
    return place


def test_trace_of_this_machine_is_not_copied(tmp_path: Path) -> None:
    with local_trace(Place(str(tmp_path), "shown")) as path:
        assert path == tmp_path


def test_copy_has_all_files_of_a_trace_and_the_name_and_is_removed(tmp_path: Path) -> None:
    files = ("meta.json", "oom.parquet", "charge/000001.parquet", "journal/oom.1.arrows")
    others = ("core.dump", "notes/meta.json", "charge/old/000001.parquet")
    place = zipped(tmp_path / "x.zip", *(f"hosts/a/{name}" for name in (*files, *others)))
    with local_trace(place) as path:
        assert path.name == "a"
        assert (path / "meta.json").read_text() == "hosts/a/meta.json"
        found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
        assert found == set(files)
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_file_outside_of_the_directory_is_refused(folders: type[FolderServer]) -> None:
    folders.files |= {"/top/a/meta.json": b"{}", "/top/a/../../evil": b""}
    (place,) = find(["folders://top"]).traces
    with pytest.raises(TraceError, match="outside of its directory"), local_trace(place):
        pass


def test_trace_that_was_removed_meanwhile_is_named_as_the_user_knows_it(folders: type[FolderServer]) -> None:
    folders.files["/top/a/meta.json"] = b"{}"
    (place,) = find(["folders://top"]).traces
    folders.files.clear()
    with pytest.raises(TraceError, match=r"^folders://top/a is gone: "), local_trace(place):
        pass


def test_error_of_the_client_of_a_store_is_a_trace_error(folders: type[FolderServer]) -> None:
    folders.files["/top/a/meta.json"] = b"{}"
    (place,) = find(["folders://top"]).traces
    folders.failures["/top/a/meta.json"] = [PermissionError("no\n such key")]
    with (
        pytest.raises(TraceError, match=r"^cannot use folders://top/a/meta.json: no such key$"),
        local_trace(place),
    ):
        pass


def test_file_that_cannot_be_fetched_for_a_moment_is_fetched_again(folders: type[FolderServer]) -> None:
    folders.files |= {"/top/a/meta.json": b"{}", "/top/a/oom.parquet": b"rows"}
    (place,) = find(["folders://top"]).traces
    folders.failures["/top/a/oom.parquet"] = [ConnectionResetError()]
    with local_trace(place) as path:
        assert (path / "oom.parquet").read_bytes() == b"rows"


def test_place_that_does_not_answer_is_waited_for_once_and_not_for_each_trace(
    folders: type[FolderServer],
) -> None:
    folders.files |= {f"/top/{name}/meta.json": b"{}" for name in "abc"}
    places = find(["folders://top"]).traces
    folders.failures |= {f"/top/{name}": [ConnectionResetError()] * 9 for name in "abc"}
    for place in places:
        with pytest.raises(TraceError, match="cannot use"), local_trace(place):
            pass
    assert [len(folders.failures[f"/top/{name}"]) for name in "abc"] == [3, 8, 8]
    folders.failures.clear()
    with local_trace(places[0]) as path:
        assert (path / "meta.json").exists()


def test_error_of_the_reader_is_not_taken_for_one_of_the_store(tmp_path: Path) -> None:
    place = zipped(tmp_path / "x.zip", "a/meta.json")
    with pytest.raises(KeyError), local_trace(place):
        raise KeyError("comm")
