"""Where a CPython process has its frames, found in its memory and its files.

CPython has a table of its own offsets at `_PyRuntime` since 3.13 (_Py_DebugOffsets in
Include/internal/pycore_debug_offsets.h; in 3.13: pycore_runtime.h). For 3.11 and 3.12 the offsets are known
by version, from the headers of CPython; the version is in the name of the interpreter's file. Everything that
is read belongs to the process and may be hostile: it is bounded, and no file is opened by a name that the
process chose.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tracer.kernel.process.elf_file import CutOffError, elf_file
from tracer.kernel.process.live_memory import Memory
from tracer.kernel.process.mapped_ranges import read_maps

_PROC: Final = Path("/proc")
_NAME: Final = re.compile(rb"(?:libpython|python)(\d)\.(\d{1,2})")
_MAYBE: Final = re.compile(rb"/(?:libpython3|python)[^/]*$")
_RUNTIME: Final = b"_PyRuntime"
_MOST_MAPS_BYTES: Final = 1 << 20


class Offsets(NamedTuple):
    """Offsets of members. `head` is in _PyRuntimeState; the next ones lead to the innermost frame of a thread
    (`cframe` 0: PyThreadState has `frame`); the rest are in _PyInterpreterFrame, PyCodeObject (`version` 0:
    it has none), PyASCIIObject and PyBytesObject."""

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
    version: int
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
        *(112, 128, 0, 72, 136, 184),
        *(16, 48, 16, 32),
    ),
    (3, 12): Offsets(
        *(40, 72, 8, 136, 56, 0),
        *(8, 0, 56, 70),
        *(112, 128, 92, 68, 136, 192),
        *(16, 40, 16, 32),
    ),
}
_COOKIE: Final = b"xdebugpy"
_DEBUG_OFFSETS: Final = struct.Struct("<8s56Q")
_FREE_THREADED: Final = 1


_OF_OBJECTS: Final = {"text_length": 16, "text": 40, "bytes_length": 16, "bytes": 32}
_LISTED: Final = [name for name in Offsets._fields if name not in ("cframe", "version", *_OF_OBJECTS)]
_PLACES: Final = {
    (3, 13): (4, 8, 20, 23, 22, *(28, 29, 30, 32), *(34, 36, 38, 37, 42)),
    (3, 14): (4, 8, 23, 26, 25, *(31, 32, 33, 35), *(39, 41, 43, 42, 47)),
    (3, 15): (4, 8, 23, 29, 25, *(39, 40, 41, 43), *(47, 49, 51, 50, 55)),
}
"""Where the table of a version has the offsets of `_LISTED`, counted in numbers from `version`."""
_VERSION_TO_LINE_TABLE: Final = 44  # bytes from co_version: itself, and five pointers
_LAST_IN_FRAME: Final = 72  # as much of it is read


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


def find_interpreter(tgid: int, memory: Memory, proc: Path = _PROC) -> Interpreter | None:
    """Return the interpreter of a process; None: it is no CPython.

    Raises NotReadError for a CPython of another kind, and OSError if the process is gone.
    """
    for name, start, end in _files_of(proc / str(tgid)):
        # The very file, in any mount namespace, also if its name leads elsewhere now.
        path = proc / str(tgid) / "map_files" / f"{start:x}-{end:x}"
        try:
            with elf_file(path) as elf:
                symbol = None if elf is None else elf.symbol(_RUNTIME)
                if elf is None or symbol is None:
                    continue
                runtime = symbol + elf.shift(start)
        except CutOffError as error:
            raise NotReadError(f"frames of a CPython are not read: {error}") from error
        file = name.rpartition(b"/")[2].decode(errors="backslashreplace")
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
    """Read the table of offsets, whose layout belongs to the version.

    A free-threaded interpreter (PEP 703) has other objects, and bytecode of its own in each thread.
    """
    version = (table[0] >> 24 & 0xFF, table[0] >> 16 & 0xFF)
    if table[_FREE_THREADED]:
        raise NotReadError(f"frames of a free-threaded CPython ({version[0]}.{version[1]}) are not read")
    if version not in _PLACES:
        raise NotReadError(f"frames of CPython {version[0]}.{version[1]} are not read")
    found = {name: table[place] for name, place in zip(_LISTED, _PLACES[version], strict=True)}
    found["version"] = found["line_table"] - _VERSION_TO_LINE_TABLE
    if any(not 0 <= offset < 1 << 24 for offset in found.values()) or any(
        found[name] > _LAST_IN_FRAME for name in ("previous", "code", "instruction", "owner")
    ):
        raise NotReadError("the table of offsets is damaged")
    return Interpreter(version, file, runtime, Offsets(cframe=0, **_OF_OBJECTS, **found))


def _files_of(process: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield (path, start, end) of the first mapping of each file that may be an interpreter."""
    seen = set()
    for one in read_maps(process, _MOST_MAPS_BYTES):
        path = one.name.removesuffix(b" (deleted)")
        if one.offset == 0 and path not in seen and _MAYBE.search(path):
            seen.add(path)
            yield path, one.start, one.end
