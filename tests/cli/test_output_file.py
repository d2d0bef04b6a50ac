"""What is known of an output before the work that it is for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracer.cli.group import group
from tracer.cli.output_file import check_output
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
