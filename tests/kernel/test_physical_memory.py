"""Where RAM is: the forms of /proc/iomem, and pages of this process."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from tracer.errors import TracerError
from tracer.kernel.physical_memory import Landmark, landmarks, ram

X86 = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
  00000000-00000000 : PCI Bus 0000:00
000f0000-000fffff : System ROM
00100000-bffdffff : System RAM
  01000000-01ffffff : Kernel code
100000000-13fffffff : System RAM
140000000-1ffffffff : virtio0
  140000000-147ffffff : System RAM (virtio_mem)
200000000-20fffffff : dax0.0
  200000000-207ffffff : System RAM (kmem)
"""


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="numbers of frames of 4 KiB")
def test_ram_has_whole_pages_of_all_ranges() -> None:
    expected = [
        range(0x1, 0x9F),  # the last page is RAM in part
        range(0x100, 0xBFFE0),
        range(0x100000, 0x140000),
        range(0x140000, 0x148000),
        range(0x200000, 0x208000),
    ]
    assert ram(X86) == expected


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="numbers of frames of 4 KiB")
def test_ram_within_ram_counts_once() -> None:
    text = "00001000-00008fff : System RAM\n  00003000-00004fff : System RAM (kmem)\n"
    assert ram(text) == [range(1, 9)]


def test_ram_without_addresses_asks_for_a_capability() -> None:
    hidden = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n"
    with pytest.raises(TracerError, match="CAP_SYS_ADMIN"):
        ram(hidden)


@pytest.mark.kernel
@pytest.mark.beside
def test_landmarks_are_pages_of_ram_in_several_places() -> None:
    with landmarks() as marks:
        frames = [frame for mark in marks if (frame := mark.frame()) is not None]
        assert os.fstat(marks[0].fd).st_size == mmap.PAGESIZE
        assert all(any(frame in frames for frames in ram()) for frame in frames)
        assert len(set(frames)) == len(frames) > 8, "one for each library"
    for mark in marks:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(mark.fd)


def test_landmark_without_a_page_of_a_file_has_no_frame() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        byte = ctypes.c_char.from_buffer(memory)
        assert Landmark(0, ctypes.addressof(byte)).frame() is None
        del byte
