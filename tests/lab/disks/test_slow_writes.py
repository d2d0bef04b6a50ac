from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.lab.disks.slow_writes import slow_writes

WRITE = """
import sys
stream = open(sys.argv[1], "xb", buffering=0)
stream.write(bytes(int(sys.argv[2])))
print("written", flush=True)
sys.stdin.read()
"""
BYTES = 3 << 20


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Make a slow file system, if this machine permits it."""
    with slow_writes(tmp_path) as directory:
        yield directory


def start_writer(file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(file), str(BYTES)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.kernel
def test_written_pages_stay_dirty_until_the_writer_ends(place: Path) -> None:
    with start_writer(place / "file") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with subprocess.Popen(["sync", str(place / "file")]) as syncing:
            with pytest.raises(subprocess.TimeoutExpired):
                syncing.wait(1)
            writer.kill()
            assert syncing.wait(60) == 0
    assert (place / "file").stat().st_size == BYTES


@pytest.mark.kernel
def test_slow_file_system_is_not_mounted_for_others(place: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text("utf-8")
    (place / "file").touch()
    assert list(tmp_path.iterdir()) == []


MAKER = """
import pathlib, sys
from tracer.lab.disks.slow_writes import slow_writes
with slow_writes(pathlib.Path(sys.argv[1])) as place:
    print(place, flush=True)
    sys.stdin.read()
"""


@pytest.mark.kernel
def test_slow_file_system_ends_with_its_maker(tmp_path: Path) -> None:
    """The maker is killed: the file system's server ends, and its blocked writer can be killed."""
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    maker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    place = Path(maker.stdout.readline().strip())
    server = os.pidfd_open(int(place.parts[2]))
    with start_writer(place / "file") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        maker.kill()
        maker.communicate()
        assert select.select([server], [], [], 10)[0] == [server], "the server still runs"
        writer.kill()
        assert writer.wait(10) == -signal.SIGKILL
    os.close(server)


def test_slow_file_system_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(TracerError, match="cannot make a slow file system") as caught,
        slow_writes(tmp_path / "is not there"),
    ):
        pass
    assert "\n" not in str(caught.value)
