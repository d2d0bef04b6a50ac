"""Names of CPython's frames: `function [file.py:line]`, from code objects in the memory of the process.

The programs read which code objects a stack has (bpf/shared/cpython.h). What they are called is read here,
once for each place in the code, while the process exists. The process may change its memory meanwhile, or be
hostile: what is read is bounded. A frame whose code object is not there any more has no name; another one at
the same address has another fingerprint.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from tracer.capture.bpf.load import Programs
from tracer.capture.symbols.address_names import ExecImage, read_image
from tracer.kernel.process.cpython import Interpreter, NotReadError, Offsets, find_interpreter
from tracer.kernel.process.live_memory import Memory
from tracer.stored_names import NAMELESS_PYTHON, stored_text

_PROC: Final = Path("/proc")
_MOST_PROCESSES: Final = 64  # to look at one again takes some 50 ms
_MOST_NAMES: Final = 1 << 16
_LONGEST_TEXT: Final = 200
_MOST_TABLE_BYTES: Final = 1 << 16
_CODE: Final = b"code\0"


class CodePlace(NamedTuple):
    """An instruction: the address of a code object, the object's fingerprint when the sample was taken, and
    the offset in bytes from the address."""

    code: int
    fingerprint: int
    offset: int


@dataclass
class _Process:
    """`codes` are code objects by address and fingerprint; None: it cannot be read."""

    image: ExecImage
    interpreter: Interpreter | None
    memory: Memory
    codes: dict[tuple[int, int], tuple[str, str, int, bytes] | None] = field(default_factory=dict)
    names: dict[CodePlace, str] = field(default_factory=dict)


class PythonStack(NamedTuple):
    """The names of a stack's frames of Python, and the file of the interpreter; None: not known."""

    interpreter: str | None
    names: list[str]

    def above(self, below: list[str]) -> list[str]:
        """Return the names of a stack, innermost first: those of Python after those of what Python has
        called. `below` is the stack in the program."""
        if not self.names or self.interpreter is None:
            return below + self.names
        own = f"[{self.interpreter}]"
        return [*takewhile(lambda name: own not in name, below), *self.names]


class PythonFrames:
    """Finds CPython processes, lets the programs read their frames, and names the frames. Several threads may
    use it.

    `warn` gets a line for each reason for which frames of some process are not read.
    """

    def __init__(self, programs: Programs, warn: Callable[[str], None], proc: Path = _PROC) -> None:
        self._map = programs.map("pythons")
        self._proc = proc
        self._known: dict[int, _Process] = {}  # by tgid, the last one needed last
        self._warn = warn
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def consider(self, tgid: int, image: ExecImage) -> None:
        """Look at a process that was not looked at before; frames of its next samples are read."""
        known = self._known.pop(tgid, None)
        if known is not None and known.image == image:
            self._known[tgid] = known
            return
        if known is not None:
            known.memory.close()
        if read_image(self._proc, tgid) != image:
            return
        with suppress(OSError):
            self._known[tgid] = self._found(tgid, image)
        while len(self._known) > _MOST_PROCESSES:
            self._known.pop(next(iter(self._known))).memory.close()

    def read(self, tgid: int, image: ExecImage, frames: Sequence[CodePlace]) -> PythonStack:
        """Look at a process as `consider` does, and return the names of frames, innermost first."""
        with self._lock:
            self.consider(tgid, image)
            known = self._known.get(tgid)
            if known is None or known.image != image or known.interpreter is None:
                return PythonStack(None, [NAMELESS_PYTHON] * len(frames))
            is_there = bool(frames) and read_image(self._proc, tgid) in (image, ExecImage(0, 0))
            names = [self._name(known, frame, is_there=is_there) for frame in frames]
            return PythonStack(known.interpreter.file, names)

    def free_ended(self) -> None:
        """Free what is known of processes that ended: an open descriptor each, which keeps a part of them."""
        with self._lock:
            for tgid, known in [*self._known.items()]:
                if read_image(self._proc, tgid) != known.image:
                    self._known.pop(tgid).memory.close()

    def close(self) -> None:
        with self._lock:
            while self._known:
                self._known.popitem()[1].memory.close()

    def _found(self, tgid: int, image: ExecImage) -> _Process:
        memory = Memory(tgid, self._proc)
        try:
            interpreter = find_interpreter(tgid, memory, self._proc)
        except NotReadError as error:
            interpreter = None
            if (why := str(error)) not in self._refused:
                self._refused.add(why)
                self._warn(why)
        except BaseException:
            memory.close()
            raise
        if interpreter is not None:
            offsets = interpreter.offsets._asdict()
            fields = (name for name, *_ in self._map.value_type._fields_ if name in offsets)
            self._map[self._map.key_type(*image)] = self._map.value_type(
                head_address=interpreter.runtime + interpreter.offsets.head,
                **{name: offsets[name] for name in fields},
            )
        return _Process(image, interpreter, memory)

    def _name(self, process: _Process, place: CodePlace, *, is_there: bool) -> str:
        name = process.names.get(place)
        if name is None:
            if len(process.codes) + len(process.names) >= _MOST_NAMES:
                process.names.clear()
                process.codes.clear()
            key = place.code, place.fingerprint
            if key not in process.codes and is_there:
                process.codes[key] = _code_object(process, *key)
            found = process.codes.get(key)
            if found is None:
                return NAMELESS_PYTHON
            assert process.interpreter is not None
            file, function, first_line, table = found
            offset = place.offset - process.interpreter.offsets.first_instruction
            line = line_of(table, first_line, max(offset, 0))
            name = f"{function} [{file}:{first_line if line is None else line}]"
            process.names[place] = name
        return name


def _code_object(process: _Process, code: int, fingerprint: int) -> tuple[str, str, int, bytes] | None:
    """Return (file, qualified name, first line, table of lines) of a code object; None: it cannot be read, or
    is another one by now."""
    assert process.interpreter is not None
    offsets, memory = process.interpreter.offsets, process.memory
    try:
        if not _is_code(memory, code):
            return None
        file = _text(process, memory.number(code + offsets.filename))
        function = _text(process, memory.number(code + offsets.qualname))
        first_line = int.from_bytes(memory.read(code + offsets.first_line, 4), "little", signed=True)
        table = memory.number(code + offsets.line_table)
        size = min(memory.number(table + offsets.bytes_length), _MOST_TABLE_BYTES)
        lines = memory.read(table + offsets.bytes, size)
        # Last: what was read before belongs to an object that was there until now.
        if _fingerprint(offsets, memory, code) != fingerprint:
            return None
        return shown_file(file), function, first_line, lines
    except OSError:
        return None


_WORDS: Final = struct.Struct("<9Q")  # of PyCodeObject, up to co_linetable
_FILENAME, _NAME = 5, 6  # positions there
_TEXT_HASH: Final = 24  # in PyASCIIObject
_TEXT_END_BYTES: Final = 32
_FACTOR: Final = 0x9E3779B97F4A7C15


def _fingerprint(offsets: Offsets, memory: Memory, code: int) -> int:
    """Return what fingerprint() in bpf/shared/cpython.h returns. Raises OSError."""
    if offsets.version:
        return int.from_bytes(memory.read(code + offsets.version, 4), "little")
    words = _WORDS.unpack(memory.read(code + offsets.line_table + 8 - _WORDS.size, _WORDS.size))
    length = memory.number(words[_FILENAME] + offsets.text_length)
    size = min(length, _TEXT_END_BYTES)
    end = memory.read(words[_FILENAME] + offsets.text + length - size, size) if size else b""
    mixed = 0
    for word in (
        *words,
        memory.number(words[_NAME] + _TEXT_HASH),
        *struct.unpack("<4Q", end.ljust(_TEXT_END_BYTES, b"\0")),
    ):
        mixed = (mixed ^ word) * _FACTOR % (1 << 64)
        mixed ^= mixed >> 32
    return mixed % (1 << 32)


_LIBRARIES: Final = re.compile(
    r".*/(?:(?:site|dist)-packages/(?=.*/)|(?=(?:site|dist)-packages/|python3\.\d+t?/))"
)


def shown_file(path: str) -> str:
    """Return what is shown of the path of a source file: `app.py` of the program, but of a library the path
    in it, which has a slash: `numpy/_core/numeric.py`, `site-packages/six.py`, `python3.13/json/decoder.py`.
    """
    in_library = _LIBRARIES.match(path)
    return path[in_library.end() :] if in_library else path.rpartition("/")[2]


_STATE: Final = 32  # of PyASCIIObject, in 3.11 to 3.15
_ENCODINGS: Final = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
_TYPE: Final = 8  # of ob_type in PyObject
_TYPE_NAME: Final = 24  # of tp_name in PyTypeObject


def _is_code(memory: Memory, address: int) -> bool:
    """Return whether an object is a code object: memory of one that was freed may be used again. Raises
    OSError."""
    name = memory.number(memory.number(address + _TYPE) + _TYPE_NAME)
    return memory.read(name, len(_CODE)) == _CODE


def _text(process: _Process, address: int) -> str:
    """Return a string, cut (PyASCIIObject, PyCompactUnicodeObject in Include/cpython/unicodeobject.h). Raises
    OSError if it is none."""
    assert process.interpreter is not None
    offsets, memory = process.interpreter.offsets, process.memory
    length = memory.number(address + offsets.text_length)
    state = memory.read(address + _STATE, 1)[0]
    kind, is_compact, is_ascii = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
    if not 0 < length < 1 << 20 or kind not in _ENCODINGS or not is_compact:
        raise OSError("not a text")
    # Other texts have their UTF-8 form before the characters, and in 3.11 another length.
    begin = (
        offsets.text if is_ascii else offsets.text + (24 if process.interpreter.version == (3, 11) else 16)
    )
    characters = memory.read(address + begin, kind * min(length, _LONGEST_TEXT))
    return stored_text(characters.decode(_ENCODINGS[kind], "replace"))


_NO_LOCATION, _LONG, _NO_COLUMN, _ONE_LINE = 15, 14, 13, 10


def line_of(table: bytes, first_line: int, offset: int) -> int | None:
    """Return the line of the instruction at an offset in bytes (Objects/locations.md of CPython).

    None: the table has no line for it.
    """
    stream, line, at = iter(table), first_line, 0
    with suppress(StopIteration):
        while True:
            first = next(stream)
            kind, size = first >> 3 & 15, ((first & 7) + 1) * 2
            if kind == _LONG:
                line += _signed(stream)
                for _ in range(3):
                    _unsigned(stream)
            elif kind == _NO_COLUMN:
                line += _signed(stream)
            elif kind != _NO_LOCATION:
                line += max(kind - _ONE_LINE, 0)
                for _ in range(2 if kind >= _ONE_LINE else 1):
                    next(stream)
            if at <= offset < at + size:
                return None if kind == _NO_LOCATION else line
            at += size
    return None


def _unsigned(stream: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = next(stream)
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            return value


def _signed(stream: Iterator[int]) -> int:
    value = _unsigned(stream)
    return -(value >> 1) if value & 1 else value >> 1
