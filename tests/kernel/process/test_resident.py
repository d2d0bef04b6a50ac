"""The strings of processes, and memory that may be in swap."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.kernel.process import resident
from tracer.kernel.process.resident import check_resident, command_line, environment

_RETITLED = """
import ctypes
at = [int(one) for one in open("/proc/self/stat").read().rpartition(")")[2].split()[45:49]]
title = b"worker: " + b"x" * (at[1] - at[0])
ctypes.memmove(at[0], title + b"\\0", len(title) + 1)
print(flush=True)
input()
"""
_AREAS = (mmap.PAGESIZE, mmap.PAGESIZE + 3, mmap.PAGESIZE + 3, mmap.PAGESIZE + 103)
_STAT = f"7 (a) S {'9 ' * 44}{' '.join(map(str, _AREAS))}"


def test_strings_are_those_that_the_kernel_shows() -> None:
    argv = [sys.executable, "-I", "-S", "-c", "print(flush=True); input()", "one two", 5000 * "x"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"A": "1", "B": 9000 * "y"}
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = Path(f"/proc/{child.pid}")
        assert command_line(process, 256) == (process / "cmdline").read_bytes()[:256]
        assert len(command_line(process, 1 << 20)) == mmap.PAGESIZE
        assert environment(process, 1 << 20) == (process / "environ").read_bytes()
        assert environment(process, 7) == (process / "environ").read_bytes()[:7]
        child.communicate(b"\n")


def test_title_that_runs_on_into_the_environment_is_read() -> None:
    argv = [sys.executable, "-I", "-S", "-c", _RETITLED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"A": 99 * "y"}) as child:
        assert child.stdout is not None
        child.stdout.readline()
        title = command_line(Path(f"/proc/{child.pid}"), 4096)
        assert title.startswith(b"worker: xxx")
        assert title == Path(f"/proc/{child.pid}/cmdline").read_bytes()
        child.communicate(b"\n")


def test_another_process_of_the_same_number_has_another_start() -> None:
    start_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert command_line(Path("/proc/self"), 256, start_ticks)
    with pytest.raises(ProcessLookupError):
        command_line(Path("/proc/self"), 256, start_ticks + 1)


@pytest.mark.parametrize("read", [command_line, environment])
@pytest.mark.parametrize(
    ("stat", "pagemap"),
    [
        (None, b""),
        ("7 (a) b) S 1", b""),
        ("7 (a) S " + " ".join(["x"] * 49), b""),
        ("7 (a) S " + " ".join(["0"] * 49), b""),  # a kernel thread, or a process of another user
        (_STAT, None),
        (_STAT, struct.pack("=Q", 1 << 63)),
        (
            _STAT,
            struct.pack("=2Q", 1 << 63, 1 << 62),
        ),
    ],
)
def test_strings_that_are_not_known_to_be_resident_are_not_read(
    tmp_path: Path, read: Callable[[Path, int], bytes], stat: str | None, pagemap: bytes | None
) -> None:
    if stat is not None:
        (tmp_path / "stat").write_text(stat)
    if pagemap is not None:
        (tmp_path / "pagemap").write_bytes(pagemap)
    (tmp_path / "cmdline").write_bytes(b"a\0")
    (tmp_path / "environ").write_bytes(b"A=1\0")
    with pytest.raises(OSError, match=r"."):
        read(tmp_path, 256)


def test_resident_strings_of_a_directory_are_read(tmp_path: Path) -> None:
    """The counterpart of the test above, whose last case differs from this by one bit."""
    (tmp_path / "stat").write_text(_STAT)
    (tmp_path / "pagemap").write_bytes(struct.pack("=2Q", 1 << 63, 1 << 63))
    (tmp_path / "cmdline").write_bytes(b"a\0b\0")
    (tmp_path / "environ").write_bytes(b"A=1\0")
    assert (command_line(tmp_path, 256, 9), environment(tmp_path, 256)) == (b"a\0b\0", b"A=1\0")


@pytest.mark.parametrize(
    ("address", "size", "is_resident"),
    [(0, 1, True), (0, 2, True), (4095, 1, True), (4095, 2, False), (8192, 4096, True), (8192, 4097, False)],
)
def test_each_page_of_a_range_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: int, size: int, *, is_resident: bool
) -> None:
    monkeypatch.setattr(resident.mmap, "PAGESIZE", 4096)  # type: ignore[attr-defined]
    entries = (1 << 63, 1 << 62, 0)
    (tmp_path / "pagemap").write_bytes(struct.pack("=3Q", *entries))
    fd = os.open(tmp_path / "pagemap", os.O_RDONLY)
    try:
        if is_resident:
            check_resident(fd, address, size)
        else:
            with pytest.raises(OSError, match=r"swap"):
                check_resident(fd, address, size)
    finally:
        os.close(fd)


def test_own_memory_is_resident() -> None:
    held = ctypes.create_string_buffer(b"x", 3 * mmap.PAGESIZE)
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        check_resident(fd, ctypes.addressof(held), len(held))
    finally:
        os.close(fd)
