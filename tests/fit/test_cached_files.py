"""The files of processes, and what stays of them in the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from tracer.fit import recorded_run

PAGES = 37


def resident_pages(path: Path) -> int:
    """Return the number of pages of a file in the page cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        of_pages = ctypes.create_string_buffer(PAGES)
        assert libc.mincore(ctypes.addressof(ctypes.c_char.from_buffer(mapped)), len(mapped), of_pages) == 0
        return sum(byte & 1 for byte in of_pages.raw)


def test_cache_of_a_file_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * PAGES * mmap.PAGESIZE)
        file.flush()
        os.fsync(file.fileno())
    path.read_bytes()
    if resident_pages(path) != PAGES:
        pytest.skip("this file system has no page cache that mincore shows")
    recorded_run.drop_files([str(tmp_path / "gone"), str(tmp_path), str(path)])
    assert resident_pages(path) == 0


def test_files_of_a_process_are_what_it_maps_and_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, deleted = tmp_path / "two words", tmp_path / "deleted"
    monkeypatch.setattr(recorded_run, "member_pids", lambda _: [os.getpid(), (1 << 22) + 1])
    with opened.open("wb"), deleted.open("wb"):
        deleted.unlink()
        files = recorded_run.files_of(tmp_path)
    assert str(opened) in files
    assert os.path.realpath("/proc/self/exe") in files
    assert not any(path.startswith(("/dev/", str(deleted))) for path in files)
