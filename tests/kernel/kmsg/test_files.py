"""Files that hold a log: text, and gzip of text."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.kmsg import files

LOG = (Path(__file__).parent / "corpus/captured-6.18-v1-kmsg.log").read_bytes()


def victims(path: Path) -> list[int]:
    return [kill.pid for report in files.read(str(path)).reports for kill in report.kills]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(LOG),
        gzip.compress(LOG[:999]) + gzip.compress(LOG[999:]),
        gzip.compress(LOG) + bytes(99),  # what tar and some tapes pad with
        gzip.compress(LOG + b"x" * (5 << 20))[:-20],
    ],
    ids=["whole", "members", "padded", "cut"],
)
def test_gzip_is_read_as_what_it_holds(tmp_path: Path, content: bytes) -> None:
    plain, zipped = tmp_path / "kern.log", tmp_path / "kern.log.1.gz"
    plain.write_bytes(LOG)
    zipped.write_bytes(content)
    assert victims(zipped) == victims(plain) != []


def test_broken_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kern.log.2.gz"
    whole = bytearray(gzip.compress(LOG))
    whole[60:90] = bytes(30)
    path.write_bytes(whole)
    with pytest.raises(TracerError, match=r"kern\.log\.2\.gz is gzip, and broken"):
        victims(path)


def test_text_that_names_a_kill_is_never_no_kill(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for text in ("Nov 25 10:00:00 host app[7]: saw Killed process 7", "java invoked oom-killer again, help"):
        path.write_text(f"hello\n{text}\n")
        with pytest.raises(TracerError, match="names a kill that could not be read, in line 2"):
            files.read(str(path))
