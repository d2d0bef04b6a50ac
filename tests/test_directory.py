"""A directory held open by its descriptor: no file outside of it is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.directory import Directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    file = tmp_path / "target"
    file.write_text("mine")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Directory:
    (tmp_path / "folder").mkdir()
    return Directory.open(tmp_path / "folder")


@pytest.mark.parametrize("dangling", [True, False])
def test_create_over_link_raises(folder: Directory, target: Path, dangling: bool) -> None:
    (folder.path / "file").symlink_to(target.with_name("absent") if dangling else target)
    with pytest.raises(FileExistsError):
        folder.create("file")
    assert target.read_text() == "mine"
    assert not target.with_name("absent").exists()


def test_create_over_file_raises(folder: Directory) -> None:
    (folder.path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        folder.create("file")
    assert (folder.path / "file").read_text() == "mine"


def test_read_of_irregular_file_raises(folder: Directory, target: Path) -> None:
    os.mkfifo(folder.path / "fifo")
    (folder.path / "link").symlink_to(target)
    (folder.path / "file").write_text("mine")
    for name in ("fifo", "link", "."):
        with pytest.raises(OSError, match=r"regular file|symbolic links|directory"):
            folder.read(name)
    with folder.read("file") as file:
        assert file.read() == b"mine"


def test_subfolder_of_link_raises(folder: Directory, tmp_path: Path) -> None:
    (folder.path / "link").symlink_to(tmp_path)
    for make in (False, True):
        with pytest.raises(NotADirectoryError):
            folder.subfolder("link", make=make)
    with pytest.raises(NotADirectoryError):
        Directory.open(folder.path / "link")


def test_directory_moved_is_still_the_same(folder: Directory, tmp_path: Path) -> None:
    folder.path.rename(tmp_path / "moved")
    folder.path.mkdir()
    with folder.create("file") as file:
        file.write(b"mine")
    folder.replace("file", "renamed")
    assert [path.name for path in tmp_path.glob("*/renamed")] == ["renamed"]
    assert (tmp_path / "moved/renamed").read_text() == "mine"
    assert (tmp_path / "moved/renamed").stat().st_mode & 0o777 == 0o600
    assert not folder.is_removed
    folder.unlink("renamed")
    (tmp_path / "moved").rmdir()
    assert folder.is_removed


def test_sync_all_reaches_each_file_and_folder_but_no_link(
    folder: Directory, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "inner/deep").mkdir(parents=True)
    (folder.path / "inner/deep/file").touch()
    (folder.path / "link").symlink_to(target)
    os.mkfifo(folder.path / "fifo")
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    folder.sync_all()
    inner = folder.path / "inner"
    assert synced == [inner / "deep/file", inner / "deep", inner, folder.path]


def test_directory_that_is_renamed_is_found_again(folder: Directory) -> None:
    path = folder.path
    assert folder.where() == path
    path.rename(path.with_name("moved"))
    assert folder.where() == path.with_name("moved")
    path.symlink_to(path.with_name("elsewhere"))
    assert folder.where() == path.with_name("moved")
    path.with_name("moved").rmdir()
    assert folder.where() == path
