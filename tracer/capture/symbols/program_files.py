"""The files of the programs that processes run, for stacks of processes that are gone.

A process that fills its limit at once is killed before its mappings can be read. The code of the program
itself can be named all the same: the programs report which file a process runs and where the kernel has put
its code (`start_code`). Libraries, whose places are not known, stay without names.

Only a path is kept. An open file would keep the file system of a container that ends from being unmounted.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from tracer.capture.bpf.ring import Records
from tracer.capture.symbols.address_names import ExecImage
from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import device_of
from tracer.kernel.process.elf_file import CutOffError, ElfFile

_MOST_FILES: Final = 4096
_MOST_PROCESSES: Final = 4096
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class ProgramFile(NamedTuple):
    """The file of a program, and where its code was in a process that ran it at `seen_ns` (CLOCK_REALTIME).

    Another file may be at `path` by now: `device` ("major:minor") and `inode` tell.
    """

    path: str
    device: str
    inode: int
    seen_ns: int
    start_code: int


class Placed(NamedTuple):
    """An open program: the address at which the file begins, and the addresses of its code."""

    fd: int
    begin: int
    code: tuple[range, ...]


class ProgramFiles:
    """What the latest records of `task` and `inode` say of programs. One thread adds, others ask."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[int, ExecImage], tuple[int, int]] = OrderedDict()
        self._files: OrderedDict[int, tuple[str, str, int]] = OrderedDict()

    def take(self, tasks: Records, inodes: Iterable[Mapping[str, Any]], clock_offset_ns: int) -> None:
        """Take records of `task`, and rows of `inodes`. `clock_offset_ns` is CLOCK_REALTIME minus
        CLOCK_MONOTONIC."""
        for row in inodes:
            if row["path_kind"] == "host" and stat.S_ISREG(row["mode"]) and row["mode"] & 0o111:
                _put(self._files, row["inode_id"], (row["path"], row["dev"], row["ino"]), _MOST_FILES)
        for record in tasks:
            if record["exe_inode_id"]:
                image = ExecImage(int(record["start_code"]), int(record["start_stack"]))
                known = int(record["exe_inode_id"]), int(record["time_ns"]) + clock_offset_ns
                _put(self._programs, (int(record["tgid"]), image), known, _MOST_PROCESSES)

    def of(self, tgid: int, image: ExecImage) -> ProgramFile | None:
        """Return the file of the program that a process ran; None if it is not known."""
        inode_id, seen_ns = self._programs.get((tgid, image), (0, 0))
        file = self._files.get(inode_id)
        return None if file is None else ProgramFile(*file, seen_ns, image.start_code)


def _put(known: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)


def open_program(program: ProgramFile) -> Placed:
    """Open the file of a program. Raises OSError or TracerError if it is another file by now, or was changed,
    or if its code cannot have been where the kernel put it."""
    fd = os.open(program.path, _FLAGS)
    try:
        status = os.fstat(fd)
        device = "{}:{}".format(*device_of(fd))
        is_same = (device, status.st_ino) == (program.device, program.inode)
        if not (is_same and stat.S_ISREG(status.st_mode) and status.st_mtime_ns <= program.seen_ns):
            raise TracerError(f"{program.path} is not the program that ran")
        with suppress(ValueError, struct.error, CutOffError):
            elf = ElfFile(fd, status.st_size)
            if (shift := elf.shift_of_code(program.start_code)) is not None:
                code = tuple(range(one.start + shift, one.stop + shift) for one in elf.code())
                return Placed(fd, elf.begin() + shift, code)
        raise TracerError(f"{program.path} has no code at {program.start_code:#x}")
    except BaseException:
        os.close(fd)
        raise
