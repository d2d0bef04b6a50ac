from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.fit.folder import CURVE, FILE, Folder
from tracer.fit.search import Run

RUN = Run(1 << 20, None, 0.25, None, 3, None, "run-1")


def test_folder_has_its_runs_when_it_is_opened_again(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "fit", ["true"])
    assert folder.next_trace() == tmp_path / "fit" / "run-1"
    folder.add(RUN, frozenset({"/bin/true", "/tmp/\udcff"}))
    again = Folder.open(tmp_path / "fit", ["true"])
    assert again.runs == [RUN]
    assert again.files == {"/bin/true", "/tmp/\udcff"}
    assert again.next_trace() == tmp_path / "fit" / "run-2"
    assert (tmp_path / "fit").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "fit" / FILE).stat().st_mode & 0o777 == 0o600


def test_runs_of_another_command_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folder.open(tmp_path / "fit", ["true"])
    with pytest.raises(TracerError, match="has runs of 'true'"):
        Folder.open(tmp_path / "fit", ["true", "x"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TracerError, match="choose another"):
        Folder.open(tmp_path / "fit", ["true"])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema": 1, "command": 3, "directory": "", "runs": [{}], "files": []}'],
)
def test_folder_of_something_else_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(TracerError, match="choose another"):
        Folder.open(tmp_path, ["true"])
    assert (tmp_path / FILE).read_text() == content


def test_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(TracerError, match="is not empty, and no folder of fit: choose another"):
        Folder.open(tmp_path, ["true"])


def test_later_schema_is_refused(tmp_path: Path) -> None:
    Folder.open(tmp_path, ["true"])
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"schema": 2}))
    with pytest.raises(TracerError, match="another version"):
        Folder.open(tmp_path, ["true"])


def test_curve_is_replaced_and_belongs_to_the_owner(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "fit", ["true"])
    folder.write_curve("<svg/>")
    assert folder.write_curve("<svg></svg>") == tmp_path / "fit" / CURVE
    assert (tmp_path / "fit" / CURVE).read_text() == "<svg></svg>"
    assert (tmp_path / "fit" / CURVE).stat().st_mode & 0o777 == 0o600
