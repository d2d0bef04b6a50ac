"""Files that a process keeps in /tmp of its own root, for others to read: safe to open whoever made them.

Anyone can make a file of any name there. So no link is followed, which would lead out of the process's root,
and only a regular file of the process's user or of root counts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_ENTRIES: Final = 4096


class Identity(NamedTuple):
    """The effective user of a process, and its pid in its own pid namespace, after which it names files."""

    user: int
    pid: int


def identity(process: Path, tgid: int) -> Identity:
    """Return the identity of a process (proc_pid_status(5)), whose directory of /proc is `process`."""
    user, number = 0, tgid
    with suppress(OSError, ValueError, IndexError):
        for line in (process / "status").read_bytes().splitlines():
            if line.startswith(b"Uid:"):
                user = int(line.split()[2])
            elif line.startswith(b"NSpid:"):
                number = int(line.split()[-1])
    return Identity(user, number)


def open_file(process: Path, user: int, *names: str) -> int:
    """Open /tmp/NAME/... of a process, and return the descriptor.

    Raises OSError if there is no such file, or if it does not count.
    """
    *folders, name = names
    place = _open_tmp(process)
    try:
        for folder in folders:
            inside = os.open(folder, _FOLDER, dir_fd=place)
            os.close(place)
            place = inside
        fd = os.open(name, _FILE, dir_fd=place)
    finally:
        os.close(place)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, user):
        os.close(fd)
        raise PermissionError(f"{name} is not a regular file of the process's user")
    return fd


def names_in_tmp(process: Path, prefix: str) -> Iterator[str]:
    """Yield the names in /tmp of a process that begin with `prefix`, among the first 4,096 entries.

    Raises OSError if it cannot be read.
    """
    place = _open_tmp(process)
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    finally:
        os.close(place)
    yield from (name for name in names if name.startswith(prefix))


def _open_tmp(process: Path) -> int:
    root = os.open(process / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.open("tmp", _FOLDER, dir_fd=root)
    finally:
        os.close(root)
