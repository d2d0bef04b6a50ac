"""The readings of what is in memory now: their child, its answers, and how often they come."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.contents.held import HeldFile
from tracer.errors import TracerError
from tracer.top import files_now, reading_files
from tracer.top.files_now import FilesNow, FilesReader

MIB = 1 << 20
WITHIN_S = 60.0
LOG = HeldFile("/var/log/app.log", "host", "8:1", 71, False, False, 5 * MIB, 0, 0, 0, 0)
ANSWER: dict[str, Any] = {
    "files": 2,
    "unnamed_bytes": 0,
    "sizes": [[71, 5 * MIB, 4096], [72, MIB, 0]],
    "named": [asdict(LOG)],
}

Print = Callable[..., None]


@pytest.fixture
def prints(monkeypatch: pytest.MonkeyPatch) -> Print:
    """Have the child print these lines, and then end or wait."""

    def printing(*lines: str, ends: str = "") -> None:
        script = f"print({chr(10).join(lines)!r}, flush=True)\n{ends}"
        monkeypatch.setattr(files_now, "argv_of_module", lambda *_: (sys.executable, "-c", script))

    return printing


def polled(reader: FilesReader, is_done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not is_done():
        assert time.monotonic() < end_s
        reader.poll()
        time.sleep(0.01)


def read(reader: FilesReader, cgroup_id: int = 7) -> FilesNow:
    polled(reader, lambda: not reader.is_reading)
    return reader.of(cgroup_id)


def test_reading_shows_its_progress_and_then_its_files(prints: Print, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    prints('{"percent":41}', ends=f"open({str(go)!r}).read(); print({json.dumps(ANSWER)!r})")
    reader = FilesReader()
    assert reader.of(7).words(0) == "NOW was not read yet"
    reader.want(7, 9 * MIB)
    polled(reader, lambda: reader.of(7).percent == 41)
    assert reader.of(7).words(0) == "reading what it has now, 41 %"
    go.write_text("")
    found = read(reader)
    assert found.sizes == {71: (5 * MIB, 4096), 72: (MIB, 0)}
    assert (found.named, found.usage_bytes) == ({71: LOG}, 9 * MIB)
    assert (found.of(71), found.of(99), found.is_whole) == ((5 * MIB, 4096), (0, 0), True)
    assert found.read_ns is not None
    assert found.words(found.read_ns + 3_000_000_000) == "NOW is 3 s old (r reads it again)"
    assert reader.of(8) == FilesNow()


@pytest.mark.parametrize("changes", [{"files": 3}, {"unnamed_bytes": 4096}])
def test_file_that_was_left_out_is_not_known(prints: Print, changes: dict[str, int]) -> None:
    prints(json.dumps(ANSWER | changes))
    reader = FilesReader()
    reader.want(7, 9 * MIB)
    assert read(reader).of(99) == (None, None)


@pytest.mark.parametrize(("rest", "is_repeated"), [(1e9, False), (0.0, True)])
def test_reading_is_repeated_after_a_rest_or_on_demand(
    prints: Print, monkeypatch: pytest.MonkeyPatch, rest: float, is_repeated: bool
) -> None:
    monkeypatch.setattr(files_now, "_REST", rest)
    prints(json.dumps(ANSWER))
    reader = FilesReader()
    reader.want(7, 9 * MIB)
    before = read(reader)
    reader.want(7, 9 * MIB)
    assert reader.is_reading is is_repeated
    reader.want(7, None, at_once=True)
    assert reader.is_reading
    assert (reader.of(7).sizes, reader.of(7).percent) == (before.sizes, 0)  # they stay meanwhile
    assert reader.of(7).words(0).endswith(" old, reading 0 %")
    reader.end()


def test_another_cgroup_is_read_at_once_and_the_reading_before_is_ended(prints: Print) -> None:
    prints('{"percent":3}', ends="input()\nimport time; time.sleep(1000)")
    reader = FilesReader()
    reader.want(7, 9 * MIB)
    prints(json.dumps(ANSWER))
    reader.want(8, None)
    assert read(reader, 8).files == 2
    assert reader.of(7) == FilesNow()


@pytest.mark.parametrize(
    ("lines", "ends", "error"),
    [
        (['{"error":"root is needed"}'], "", "root is needed"),
        (['{"percent":7}'], "import os; os.kill(os.getpid(), 9)", "the reading was ended by signal 9"),
        (['{"percent":'], "raise SystemExit(3)", "the reading ended with exit status 3"),
    ],
)
def test_reading_that_fails_says_why(prints: Print, lines: list[str], ends: str, error: str) -> None:
    prints(*lines, ends=ends)
    reader = FilesReader()
    reader.want(7, 9 * MIB)
    assert read(reader).words(0) == f"NOW is not known ({error})"
    reader.want(7, 9 * MIB)
    assert not reader.is_reading, "it is not tried again and again"


def test_reading_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_now, "argv_of_module", lambda *_: ("/nonexistent/python",))
    reader = FilesReader()
    reader.want(7, 9 * MIB)
    assert reader.of(7).words(0) == "NOW is not known (no process can be started: No such file or directory)"


def test_child_prints_an_error_as_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise TracerError("needs root")

    for part in ("end_with_parent", "stand_back"):
        monkeypatch.setattr(reading_files, part, lambda **_: None)
    monkeypatch.setattr(reading_files, "files_below", refused)
    reading_files.main(["7"])
    assert json.loads(capsys.readouterr().out) == {"error": "needs root"}
