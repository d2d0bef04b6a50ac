"""The mappings of a process: /proc/PID/maps, as show_map_vma() in fs/proc/task_mmu.c prints it.

A process chooses the names of the files that it maps. The kernel escapes only the newline in them
(seq_path(), fs/seq_file.c), so that a name may hold any other byte, also those at which Python's splitlines()
splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_LINE: Final = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]{1,16}) "
    rb"([0-9a-f]{1,8}):([0-9a-f]{1,8}) ([0-9]{1,20})(?: +([^\n]*))?$",
    re.MULTILINE,
)


class MappedRange(NamedTuple):
    """A mapping: [start, end).

    `permissions`: "rw-p". `offset`: of `start` in the file, in bytes. `device` (major, minor) and `inode`: 0
    for memory without a file. `name`: the path of the file, which may end in " (deleted)", or a name of the
    kernel or the process in brackets.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: tuple[int, int]
    inode: int
    name: bytes

    @property
    def place(self) -> str:
        """Return the name of the mapping's link in /proc/PID/map_files."""
        return f"{self.start:x}-{self.end:x}"


def read_maps(process: Path, most_bytes: int = -1) -> list[MappedRange]:
    """Return the mappings of a process (a directory of /proc), from at most so many bytes of text.

    Raises OSError if the process has ended or may not be read.
    """
    with (process / "maps").open("rb") as stream:
        return [*parse_maps(stream.read(most_bytes))]


def parse_maps(text: bytes) -> Iterator[MappedRange]:
    """Yield the mappings in lines of this form; other lines are left out."""
    for line in _LINE.finditer(text):
        start, end, permissions, offset, major, minor, inode, name = line.groups(b"")
        if (begin := int(start, 16)) < (behind := int(end, 16)):
            yield MappedRange(
                begin,
                behind,
                permissions.decode("ascii"),
                int(offset, 16),
                (int(major, 16), int(minor, 16)),
                int(inode),
                name,
            )
