"""Where a CPython process has its frames, found in its memory and its files.

CPython 3.13 has a table of its own offsets at `_PyRuntime` (Include/internal/pycore_runtime.h,
_Py_DebugOffsets). For 3.11 and 3.12 the offsets are known by version, from the headers of CPython; the
version is in the name of the interpreter's file. Everything that is read belongs to the process and may be
hostile: it is bounded, and no file is opened by a name that the process chose.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_NAME: Final = re.compile(rb"(?:libpython|python)(\d)\.(\d{1,2})")
_MAYBE: Final = re.compile(rb"/(?:libpython3|python)[^/]*$")
_RUNTIME: Final = b"_PyRuntime"
_MOST_MAPS_BYTES: Final = 1 << 20
_MOST_FILE_BYTES: Final = 1 << 30
_MOST_SYMBOLS: Final = 1 << 17


class Offsets(NamedTuple):
    """Offsets of members. `head` is in _PyRuntimeState; the next ones lead to the innermost frame of a thread
    (`cframe` 0: PyThreadState has `frame`); the rest are in _PyInterpreterFrame, PyCodeObject, PyASCIIObject
    and PyBytesObject."""

    head: int
    threads: int
    next: int
    thread_id: int
    cframe: int
    frame: int
    previous: int
    code: int
    instruction: int
    owner: int
    filename: int
    qualname: int
    first_line: int
    line_table: int
    first_instruction: int
    text_length: int
    text: int
    bytes_length: int
    bytes: int


_KNOWN: Final = {
    (3, 11): Offsets(
        *(40, 16, 8, 152, 56, 8),
        *(48, 32, 56, 69),
        *(112, 128, 72, 136, 184),
        *(16, 48, 16, 32),
    ),
    (3, 12): Offsets(
        *(40, 72, 8, 136, 56, 0),
        *(8, 0, 56, 70),
        *(112, 128, 68, 136, 192),
        *(16, 40, 16, 32),
    ),
}
_COOKIE: Final = b"xdebugpy"
_DEBUG_OFFSETS: Final = struct.Struct("<8s56Q")
_FREE_THREADED: Final = 1


class NotReadError(Exception):
    """A Python process whose frames cannot be read; the text says why."""


@dataclass(frozen=True)
class Interpreter:
    """The interpreter of a process: its version, the name of the file that has its code, the address of
    `_PyRuntime`, and the offsets."""

    version: tuple[int, int]
    file: str
    runtime: int
    offsets: Offsets


class Memory:
    """The memory of a process, read through a descriptor that stays with that process."""

    def __init__(self, tgid: int, proc: Path = _PROC) -> None:
        self._fd = os.open(proc / str(tgid) / "mem", os.O_RDONLY | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes. Raises OSError if they cannot be read."""
        if not 0 < address < 1 << 63:
            raise OSError(f"{address:#x} is no address of a program")
        found = os.pread(self._fd, size, address)
        if len(found) < size:
            raise OSError(f"{address:#x} is not mapped as a whole")
        return found

    def number(self, address: int) -> int:
        """Return the 8 bytes at an address as a number. Raises OSError."""
        return int.from_bytes(self.read(address, 8), "little")

    def close(self) -> None:
        os.close(self._fd)


def find_interpreter(tgid: int, memory: Memory, proc: Path = _PROC) -> Interpreter | None:
    """Return the interpreter of a process; None: it is no CPython.

    Raises NotReadError for a CPython of another kind, and OSError if the process is gone.
    """
    for name, start, end in _files_of(proc / str(tgid) / "maps"):
        # The very file, in any mount namespace, also if its name leads elsewhere now.
        path = proc / str(tgid) / "map_files" / f"{start:x}-{end:x}"
        symbol = _dynamic_symbol(path, _RUNTIME)
        if symbol is None:
            continue
        file = name.rpartition(b"/")[2].decode(errors="backslashreplace")
        runtime = symbol.address + (start - symbol.lowest if symbol.is_relocated else 0)
        head = memory.read(runtime, _DEBUG_OFFSETS.size)
        if head.startswith(_COOKIE):
            return _of_debug_offsets(file, runtime, _DEBUG_OFFSETS.unpack(head)[1:])
        version = _NAME.search(name)
        found = (int(version[1]), int(version[2])) if version else None
        if found not in _KNOWN:
            raise NotReadError(
                f"frames of CPython {'.'.join(map(str, found)) if found else 'of an unknown version'} "
                "are not read"
            )
        return Interpreter(found, file, runtime, _KNOWN[found])
    return None


def _of_debug_offsets(file: str, runtime: int, table: tuple[int, ...]) -> Interpreter:
    """Read the table of CPython 3.13; the layout of the table belongs to the version."""
    version = (table[0] >> 24 & 0xFF, table[0] >> 16 & 0xFF)
    if version != (3, 13):
        raise NotReadError(f"frames of CPython {version[0]}.{version[1]} are not read")
    if table[_FREE_THREADED]:
        raise NotReadError("frames of a free-threaded CPython are not read")
    if any(offset >= 1 << 24 for offset in table[2:]):
        raise NotReadError("the table of offsets is damaged")
    offsets = Offsets(
        *(table[4], table[8], table[20], table[23], 0, table[22]),
        *(table[28], table[29], table[30], table[32]),
        *(table[34], table[36], table[38], table[37], table[42]),
        *(16, 40, 16, 32),
    )
    return Interpreter(version, file, runtime, offsets)


def _files_of(maps: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield (path, start, end) of the first mapping of each file that may be an interpreter."""
    with maps.open("rb") as stream:
        lines = stream.read(_MOST_MAPS_BYTES).splitlines()
    seen = set()
    for line in lines:
        fields = line.split(None, 5)
        if len(fields) < 6 or int(fields[2], 16):
            continue
        path = fields[5].removesuffix(b" (deleted)")
        if path not in seen and _MAYBE.search(path):
            seen.add(path)
            start, _, end = fields[0].partition(b"-")
            yield path, int(start, 16), int(end, 16)


class _Symbol(NamedTuple):
    """A symbol: its address, the lowest address of the file's segments, and whether it is loaded anywhere."""

    address: int
    lowest: int
    is_relocated: bool


_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_ENTRY: Final = struct.Struct("<IBBHQQ")
_ELF64_LITTLE: Final = (b"\x7fELF", 2, 1)
_PT_LOAD: Final = 1
_SHT_DYNSYM: Final = 11
_ET_DYN: Final = 3


def _dynamic_symbol(path: Path, name: bytes) -> _Symbol | None:
    """Return a symbol of the dynamic table of an ELF file (elf(5)); None if it has none of this name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        if not _HEADER.size <= size <= _MOST_FILE_BYTES:
            return None
        with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
            return _symbol_in(data, name)
    except (struct.error, ValueError):  # it is cut off, or no regular file
        return None
    finally:
        os.close(fd)


def _symbol_in(data: mmap.mmap, name: bytes) -> _Symbol | None:
    head = _HEADER.unpack_from(data)
    if head[:3] != _ELF64_LITTLE:
        return None
    kind, segments_at, sections_at = head[3], head[7], head[8]
    segment_bytes, segments, section_bytes, sections = head[11:15]
    loaded = [_SEGMENT.unpack_from(data, segments_at + at * segment_bytes) for at in range(segments)]
    lowest = min((one[3] for one in loaded if one[0] == _PT_LOAD), default=0)
    tables = [_SECTION.unpack_from(data, sections_at + at * section_bytes) for at in range(sections)]
    for table in tables:
        if table[1] != _SHT_DYNSYM or table[6] >= len(tables):
            continue
        texts_at, texts_bytes = tables[table[6]][4:6]
        found = data.find(b"\0" + name + b"\0", texts_at, texts_at + texts_bytes)
        if found < 0:
            continue
        wanted = found + 1 - texts_at
        symbols = data[table[4] : table[4] + min(table[5], _MOST_SYMBOLS * _ENTRY.size)]
        for at, _, _, section, address, _ in _ENTRY.iter_unpack(symbols[: len(symbols) // 24 * 24]):
            if at == wanted and section:
                return _Symbol(address, lowest, kind == _ET_DYN)
    return None
