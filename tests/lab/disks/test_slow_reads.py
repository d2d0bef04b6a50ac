from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.lab.disks.fuse import READ_AHEAD_BYTES
from tracer.lab.disks.slow_reads import READ_S, slow_reads
from tracer.lab.scratch import cached_pages

PARTS = 13
CONTENT = os.urandom(PARTS * READ_AHEAD_BYTES - 777)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Make a file on a disk that is slow to read, if this machine permits it."""
    (tmp_path / "content").write_bytes(CONTENT)
    (tmp_path / "disk").mkdir()
    with slow_reads(tmp_path / "content", tmp_path / "disk") as place:
        yield place / "content"


def pages_in_cache(file: Path) -> int:
    with file.open("rb") as stream:
        return cached_pages(stream.fileno(), len(CONTENT))


@pytest.mark.kernel
@pytest.mark.beside
def test_first_reading_takes_the_time_of_its_parts(file: Path) -> None:
    assert pages_in_cache(file) == 0
    begin = time.monotonic()
    assert file.read_bytes() == CONTENT
    assert time.monotonic() - begin >= PARTS * READ_S
    assert pages_in_cache(file) == -(-len(CONTENT) // mmap.PAGESIZE), "opening it again drops no page"


@pytest.mark.kernel
@pytest.mark.beside
def test_mapped_file_takes_the_time_of_its_parts(file: Path) -> None:
    begin = time.monotonic()
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[:] == CONTENT
    assert time.monotonic() - begin >= PARTS * READ_S


@pytest.mark.kernel
@pytest.mark.beside
def test_program_on_the_slow_disk_is_executed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with slow_reads(Path("/bin/sh"), tmp_path / "disk") as place:
        done = subprocess.run([place / "sh", "-c", "echo $((6 * 7))"], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"42\n"


@pytest.mark.kernel
@pytest.mark.beside
def test_slow_disk_is_not_mounted_for_others(file: Path, tmp_path: Path) -> None:
    assert file.stat().st_size == len(CONTENT)
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.kernel
@pytest.mark.beside
def test_slow_disk_has_no_other_file(file: Path) -> None:
    """An interpreter looks for files beside its program, such as pyvenv.cfg."""
    assert file.exists()
    assert not file.with_name("pyvenv.cfg").exists()


def test_slow_disk_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(TracerError, match="cannot make a slow file system") as caught,
        slow_reads(Path("/bin/sh"), tmp_path / "is not there"),
    ):
        pass
    assert "\n" not in str(caught.value)
