"""Log files: text, compressed text, and others that are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.kmsg import log_files

LOG = (Path(__file__).parent / "corpus/captured-6.18-v1-kmsg.log").read_bytes()


def victims(path: Path) -> list[int]:
    return [kill.pid for report in log_files.read(str(path)).reports for kill in report.kills]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(LOG),
        gzip.compress(LOG[:999]) + gzip.compress(LOG[999:]),
        gzip.compress(LOG) + bytes(99),  # padding, as of tar
        gzip.compress(LOG + b"x" * (5 << 20))[:-20],
        lzma.compress(LOG),
        lzma.compress(LOG + b"x" * (5 << 20))[:-40],
        bz2.compress(LOG),
        bz2.compress(LOG + random.Random(7).randbytes(1 << 20).hex().encode())[:-20],
    ],
    ids=["whole", "members", "padded", "cut", "xz", "xz cut", "bzip2", "bzip2 cut"],
)
def test_compressed_log_is_read(tmp_path: Path, content: bytes) -> None:
    plain, zipped = tmp_path / "kern.log", tmp_path / "kern.log.1.gz"
    plain.write_bytes(LOG)
    zipped.write_bytes(content)
    assert victims(zipped) == victims(plain) != []


@pytest.mark.parametrize(
    ("kind", "content"),
    [("gzip", gzip.compress(LOG)), ("xz", lzma.compress(LOG)), ("bzip2", bz2.compress(LOG))],
)
def test_broken_compressed_log_raises(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "kern.log.2"
    whole = bytearray(content)
    whole[60:90] = bytes(30)
    path.write_bytes(whole)
    with pytest.raises(TracerError, match=rf"kern\.log\.2 is {kind}, and broken"):
        victims(path)


def test_log_with_unreadable_kill_raises(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for text in ("Nov 25 10:00:00 host app[7]: saw Killed process 7", "java invoked oom-killer again, help"):
        path.write_text(f"hello\n{text}\n")
        with pytest.raises(TracerError, match="names a kill that could not be read, in line 2"):
            log_files.read(str(path))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/kmsg"])
def test_endless_device_raises(device: str) -> None:
    if not os.access(device, os.R_OK):
        pytest.skip(f"{device} cannot be read here")
    with pytest.raises(TracerError, match=f"{device} has no end"):
        log_files.read(device)


def test_empty_log_has_no_kill_and_is_reported_as_empty(tmp_path: Path) -> None:
    """/dev/null is a device that has an end."""
    (tmp_path / "empty").touch()
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    for log in (os.devnull, tmp_path / "empty", tmp_path / "empty.gz"):
        assert log_files.read(str(log)) == log_files.Log([], [], is_empty=True)
    (tmp_path / "line").write_text("\n")
    assert not log_files.read(str(tmp_path / "line")).is_empty
