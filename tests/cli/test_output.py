"""Files and directories that a verb writes: complete or absent, private, and never replaced by mistake."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner

from tracer.cli.group import group
from tracer.cli.output import Write, check_folder, check_output, write_folder
from tracer.errors import TracerError, UsageError


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_output_in_no_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TracerError, match=rf"^cannot write .*/{folder}"):
        check_output(tmp_path / folder / "page.html", force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_in_a_folder_of_others_is_refused() -> None:
    with pytest.raises(TracerError, match=r"^cannot write to /: "):
        check_output(Path("/page.html"), force=False)


def test_existing_file_needs_force(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    check_output(page, force=False)
    page.touch()
    check_output(page, force=True)
    with pytest.raises(TracerError, match="exists"):
        check_output(page, force=False)
    with pytest.raises(UsageError, match="is a directory"):
        check_output(tmp_path, force=True)


def test_fleet_refuses_a_page_that_cannot_be_written_before_it_reads(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing/page.html")
    ended = CliRunner().invoke(group, ["fleet", str(tmp_path / "no-trace"), "--report", missing])
    assert isinstance(ended.exception, TracerError)
    assert str(ended.exception).startswith(f"cannot write to {tmp_path}/missing: ")


NAMES = ("a.csv", "b.csv")


def files(text: bytes = b"x") -> Iterator[tuple[str, Write]]:
    def write(file: IO[bytes]) -> None:
        file.write(text)

    return ((name, write) for name in NAMES)


def broken() -> Iterator[tuple[str, Write]]:
    yield from files(b"new")
    raise KeyboardInterrupt


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_written_directory_and_files_are_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    check_folder(output, False, NAMES)
    write_folder(output, files())
    assert capsys.readouterr().out == f"{output}\n"
    assert mode(output) == 0o700
    assert {path.name: mode(path) for path in output.iterdir()} == dict.fromkeys(NAMES, 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_existing_directory_is_replaced_with_force_only(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_folder(output, files(b"old"))
    with pytest.raises(TracerError, match="-f"):
        check_folder(output, False, NAMES)
    check_folder(output, True, NAMES)
    write_folder(output, files(b"new"))
    assert (output / "a.csv").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_directory_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_folder(output, files())
    (output / "thesis.tex").touch()
    with pytest.raises(TracerError, match=r"thesis\.tex"):
        check_folder(output, True, NAMES)


def test_what_is_interrupted_leaves_the_old_directory(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_folder(output, broken())
    assert list(tmp_path.iterdir()) == []
    write_folder(output, files(b"old"))
    with pytest.raises(KeyboardInterrupt):
        write_folder(output, broken())
    assert (output / "a.csv").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_outputs_that_are_no_new_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (Path("-"), Path(), Path(".."), Path("/"), tmp_path / "file", tmp_path / "link"):
        with pytest.raises(UsageError):
            check_folder(output, True, NAMES)
    for output in (tmp_path / "none" / "out", tmp_path / "file" / "out"):
        with pytest.raises(TracerError, match="cannot write"):
            write_folder(output, files())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
