from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import MountTable, read_mounts
from tracer.lab.scratch import cached_pages, scratch_directory, write_uncached

PAGE = os.sysconf("SC_PAGE_SIZE")


def on_tmpfs() -> Path | None:
    """Return a writable directory in memory, if this machine has one."""
    mount = MountTable(read_mounts()).mount_of("/dev/shm")
    return Path("/dev/shm") if mount is not None and mount.fs_type == "tmpfs" else None


def test_scratch_file_is_private_and_uncached(disk_dir: Path) -> None:
    size = 301 * PAGE + 5
    write_uncached(disk_dir / "f", size)
    assert (disk_dir / "f").stat().st_size == size
    assert stat.S_IMODE((disk_dir / "f").stat().st_mode) == 0o600
    descriptor = os.open(disk_dir / "f", os.O_RDWR)
    try:
        assert cached_pages(descriptor, size) == 0
        os.pread(descriptor, size, 0)
        assert cached_pages(descriptor, size) == 302
    finally:
        os.close(descriptor)


def test_scratch_directory_is_private_and_removed(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "f").touch()
    assert not directory.exists()


def test_scratch_directory_is_not_in_memory() -> None:
    near = on_tmpfs()
    if near is None:
        pytest.skip("there is no tmpfs at /dev/shm")
    with scratch_directory(near) as directory:
        assert not directory.is_relative_to(near)


def test_scratch_file_that_stays_cached_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    near = on_tmpfs()
    if near is None:
        pytest.skip("there is no tmpfs at /dev/shm")
    monkeypatch.setattr("tracer.lab.scratch._DROP_WITHIN_S", 0.05)
    file = near / f"memcg-tracer-test-{os.getpid()}"
    try:
        with pytest.raises(TracerError, match="stays in the page cache"):
            write_uncached(file, 10 * PAGE)
    finally:
        file.unlink(missing_ok=True)


def test_scratch_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="choose another place"):
        write_uncached(tmp_path / "missing" / "f", PAGE)


def test_leftovers_of_a_killed_maker_are_removed(disk_dir: Path) -> None:
    script = (
        "import os, pathlib, sys; from tracer.lab.scratch import scratch_directory\n"
        "with scratch_directory(pathlib.Path(sys.argv[1])) as made:\n"
        "    (made / 'f').touch(); print(made, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(disk_dir)], capture_output=True, text=True, check=False
    )
    left = Path(killed.stdout.strip())
    alike = disk_dir / ".memcg-tracer-notes"
    alike.mkdir()
    assert (left / "f").exists()
    with scratch_directory(disk_dir) as ours, scratch_directory(disk_dir):
        assert not left.exists()
        assert ours.exists()
    assert alike.exists()
