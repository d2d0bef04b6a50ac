"""Unwinding of user stacks without frame pointers.

libdw (elfutils) reads where each function keeps its return address from the call frame information of its
file (.eh_frame, .debug_frame).

It needs the registers and a copy of the stack, which the programs take at the sample, and the files that the
process has mapped. They are opened at once, so that stacks can be unwound after the process has ended. They
are opened as the kernel has them mapped (/proc/PID/map_files): a path may lead to another file in the mount
namespace of the process, and may be deleted. Nobody looks for files of debug information, on no network.

The files are hostile. `Unwinder` runs in a child process only (`SymbolProcess`).
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracer.capture.symbols.address_names import Resolved, StackCopy
from tracer.capture.symbols.function_bounds import FunctionBounds
from tracer.capture.symbols.libelf_file import LibelfFile
from tracer.capture.symbols.source_lines import SourceLines
from tracer.errors import TracerError
from tracer.kernel.process.elf_file import CutOffError, ElfFile
from tracer.kernel.process.mapped_ranges import read_maps
from tracer.program_modules import may_be_of_program
from tracer.wire.fields import LENGTHS

if TYPE_CHECKING:
    from tracer.capture.symbols.symbol_index import SymbolIndex

_LIBRARY: Final = "libdw.so.1"
_MACHINE: Final = "x86_64"
PACKAGES: Final = ("Debian: libdw1", "Fedora: elfutils-libs", "Arch: libelf")
"""The packages of libdw."""
_PROC: Final = Path("/proc")
_MOST_FILES: Final = 1024
_MOST_LINES_BYTES: Final = 256 << 20  # of a file
_MOST_UNPACKED_BYTES: Final = 32 << 20  # of its compressed sections; libdw takes twice as much
_ADDRESS_MASK: Final = (1 << 64) - 1
_SYMBOL_BYTES: Final = 24  # struct Elf64_Sym (elf(5))
_SYMBOL_SIZE_AT: Final = 16
_MOST_FRAMES: Final = LENGTHS["TRACER_USER_FRAMES"]
_ELF_64_X86_64: Final = (b"\x7fELF\x02\x01", (62).to_bytes(2, "little"))  # e_ident, e_machine (elf(5))

_PT_REGS: Final = (
    *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8"),
    *("ax", "cx", "dx", "si", "di", "orig_ax", "ip", "cs", "flags", "sp", "ss"),
)
"""The registers in the order of struct pt_regs (arch/x86/include/uapi/asm/ptrace.h)."""

_DWARF: Final = [
    _PT_REGS.index(name)
    for name in (
        *("ax", "dx", "cx", "bx", "si", "di", "bp", "sp"),
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "ip"),
    )
]
"""The positions of the registers in the order of DWARF's numbers (System V ABI, AMD64 supplement, 3.6.2)."""
_SP: Final = _PT_REGS.index("sp")
_DWARF_SP, _DWARF_IP = 7, 16  # positions in `_DWARF`

_CALL: Final = re.compile(
    rb".*(\xe8....|\xff([\x10-\x13\x16\x17\xd0-\xd7]|[\x14\x50-\x53\x55-\x57].|\x54.."
    rb"|[\x15\x90-\x93\x95-\x97]....|\x94.....))",
    re.DOTALL,
)
"""Code that ends with a call: relative, or through a register or memory (CALL, Intel SDM volume 2)."""
_LONGEST_CALL: Final = 7

_Pointer = ctypes.c_void_p
_Word = ctypes.c_uint64
_NextThread = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.POINTER(_Pointer))
_ReadMemory = ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer, _Word, ctypes.POINTER(_Word), _Pointer)
_SetRegisters = ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer, _Pointer)
_OnFrame = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer)


class _Callbacks(ctypes.Structure):
    """Dwfl_Callbacks (libdwfl.h)."""

    _fields_ = tuple(
        (name, _Pointer) for name in ("find_elf", "find_debuginfo", "section_address", "debuginfo_path")
    )


class _ThreadCallbacks(ctypes.Structure):
    """Dwfl_Thread_Callbacks (libdwfl.h)."""

    _fields_ = (
        ("next_thread", _NextThread),
        ("get_thread", _Pointer),
        ("memory_read", _ReadMemory),
        ("set_initial_registers", _SetRegisters),
        ("detach", _Pointer),
        ("thread_detach", _Pointer),
    )


_ABSENT: Final = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: -1)
"""find_elf and find_debuginfo: there is no such file. libdw's own functions ask debuginfod."""


def is_known_here() -> bool:
    """Return whether stacks of this kind of machine can be unwound, with libdw."""
    return os.uname().machine == _MACHINE


@cache
def why_not() -> str | None:
    """Return the reason for which stacks cannot be unwound here; None: they can."""
    if not is_known_here():
        return f"only {_MACHINE} is known"
    try:
        _library()
    except OSError:
        return f"{_LIBRARY} (elfutils) is not installed"
    return None


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    for name in ("begin", "report_elf", "addrmodule", "module_getelf", "module_eh_cfi", "module_dwarf_cfi"):
        getattr(library, f"dwfl_{name}").restype = _Pointer
    for name in ("dwfl_module_addrinfo", "dwfl_module_info"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class _Demangler:
    """C++ names as they are written in a program (__cxa_demangle of the C++ ABI); Rust's older names, too."""

    def __init__(self) -> None:
        self._demangle: Any = None
        with suppress(OSError):
            library = ctypes.CDLL("libstdc++.so.6")
            self._demangle = library["__cxa_demangle"]  # as an attribute, Python would change its name
            self._demangle.restype = _Pointer

    def name(self, symbol: str) -> str:
        """Return the name, or the symbol itself if it is not mangled."""
        if self._demangle is None or not symbol.startswith("_Z"):
            return symbol
        status = ctypes.c_int()
        found = _Pointer(self._demangle(symbol.encode(errors="replace"), None, None, ctypes.byref(status)))
        if status.value or not found.value:
            return symbol
        text = ctypes.string_at(found.value).decode(errors="backslashreplace")
        _c_library().free(found)
        return text


class _File(NamedTuple):
    """A mapped file with code, by the mapping of its beginning. `link`: its name in /proc/PID/map_files."""

    path: bytes
    link: str
    begin: int


class OpenFile(NamedTuple):
    """A file with code that is open, and the address of its beginning. libdw closes it."""

    path: bytes
    fd: int
    begin: int


class Unwinder:
    """Unwinds stacks of a process with the files that it has mapped now, and names their functions.

    `program`: the one file, open, of a process that is gone. Raises OSError if they cannot be read, and
    TracerError if libdw can do nothing with them.
    """

    def __init__(self, tgid: int, proc: Path = _PROC, program: OpenFile | None = None) -> None:
        self._dw = _library()
        self._demangler = _Demangler()
        self._lines = SourceLines(self._dw, self._demangler.name)
        self._without_lines: set[bytes] = set()
        self._modules: dict[int, tuple[int, SymbolIndex, FunctionBounds]] = {}  # by Dwfl_Module *
        self._tgid = tgid
        self._addresses: list[int] = []
        self._copy = StackCopy(b"", b"")
        self._registers: list[int] = []
        absent = ctypes.cast(_ABSENT, _Pointer)
        self._callbacks = _Callbacks(absent, absent, None, None)
        self._dwfl = _Pointer(self._dw.dwfl_begin(ctypes.byref(self._callbacks)))
        self._report(_mapped_files(proc / str(tgid)) if program is None else [program])
        self._thread = _ThreadCallbacks(
            _NextThread(self._next_thread),
            None,
            _ReadMemory(self._read_memory),
            _SetRegisters(self._set_registers),
            None,
            None,
        )
        self._on_frame = _OnFrame(self._take_frame)
        if not self._dw.dwfl_attach_state(self._dwfl, None, tgid, ctypes.byref(self._thread), None):
            raise TracerError("libdw cannot unwind stacks of this program")

    def unwind(self, copy: StackCopy) -> list[int]:
        """Return the addresses of a stack, innermost first, as far as the files and the copy allow."""
        self._copy = copy
        words = memoryview(copy.registers).cast("Q").tolist()
        self._registers = [words[position] for position in _DWARF]
        self._begin = words[_SP]
        self._addresses = []
        self._return_from_leaf()
        self._dw.dwfl_getthread_frames(self._dwfl, self._tgid, self._on_frame, None)
        return self._addresses

    def _return_from_leaf(self) -> None:
        """Take the first frame, if it is of a function that no table describes, and the stack pointer leads
        to a return address. Such functions are assembly, as memset() of musl, which keeps nothing on the
        stack; libdw would follow the frame pointer, which is that of a caller, and miss the direct caller."""
        address = self._registers[_DWARF_IP]
        at_stack = int.from_bytes(self._copy.stack[:8], "little")
        if self._is_described(address) or not self._is_after_call(at_stack):
            return
        self._addresses.append(address)
        self._registers[_DWARF_IP] = at_stack
        self._registers[_DWARF_SP] += 8

    def _is_described(self, address: int) -> bool:
        """Return whether a stack can be unwound from an address by call frame information."""
        module = _Pointer(self._dw.dwfl_addrmodule(self._dwfl, _Word(address)))
        for tables in (self._dw.dwfl_module_eh_cfi, self._dw.dwfl_module_dwarf_cfi):
            bias, frame = _Word(), _Pointer()
            table = _Pointer(tables(module, ctypes.byref(bias))) if module.value else module
            at = _Word(address - bias.value & _ADDRESS_MASK)
            if table.value and not self._dw.dwarf_cfi_addrframe(table, at, ctypes.byref(frame)):
                _c_library().free(frame)
                return True
        return False

    def _is_after_call(self, address: int) -> bool:
        module = _Pointer(self._dw.dwfl_addrmodule(self._dwfl, _Word(address)))
        if not module.value:
            return False
        bias = _Word()
        elf = _Pointer(self._dw.dwfl_module_getelf(module, ctypes.byref(bias)))
        begin = address - _LONGEST_CALL - bias.value & _ADDRESS_MASK
        return _CALL.fullmatch(LibelfFile(self._dw, elf).code(begin, _LONGEST_CALL)) is not None

    def resolve(self, address: int) -> Resolved:
        """See `SymbolTable.resolve`. The symbols are those in the file itself; without one, offsets are
        addresses in the file, as addr2line takes them.

        libdw takes a symbol without a size to reach to the next one, over functions that have no symbol.
        """
        module = _Pointer(self._dw.dwfl_addrmodule(self._dwfl, _Word(address)))
        if not module.value:
            return Resolved(None, address, None)
        path = self._dw.dwfl_module_info(module, None, None, None, None, None, None, None)
        where = None if path is None else path.decode(errors="backslashreplace")
        bias, symbols, bounds = self._of_module(module)
        at = address - bias & _ADDRESS_MASK
        found = symbols.at(at)
        if found is None:
            begin, least = bounds.around(at)
            if symbols.has_label(least, at):
                found = self._asked(module, address, at - least)
            if found is None:
                return Resolved(None, at, where, begin=begin)
        shown = self._demangler.name(found[0].decode(errors="backslashreplace"))
        source = () if path in self._without_lines else tuple(self._lines.frames(module, address))
        return Resolved(shown, found[1], where, source)

    def _of_module(self, module: ctypes.c_void_p) -> tuple[int, SymbolIndex, FunctionBounds]:
        """Return what to take from an address to have one of the file, and what is known of the file."""
        from tracer.capture.symbols.symbol_index import SymbolIndex  # noqa: PLC0415  it imports numpy

        assert module.value is not None
        if module.value not in self._modules:
            bias = _Word()
            elf = _Pointer(self._dw.dwfl_module_getelf(module, ctypes.byref(bias)))
            file = LibelfFile(self._dw, elf)
            symbols = SymbolIndex(file, self._dw.dwfl_module_getsymtab(module))
            self._modules[module.value] = bias.value, symbols, FunctionBounds(file)
        return self._modules[module.value]

    def _asked(self, module: ctypes.c_void_p, address: int, most: int) -> tuple[bytes, int] | None:
        """Return what libdw has at an address, and the offset in it: a symbol with a size, or a label that is
        at most so far before."""
        offset, symbol = _Word(), ctypes.create_string_buffer(_SYMBOL_BYTES)
        name = self._dw.dwfl_module_addrinfo(
            module, _Word(address), ctypes.byref(offset), symbol, None, None, None
        )
        has_size = any(symbol.raw[_SYMBOL_SIZE_AT:])
        return (name, offset.value) if name is not None and (has_size or offset.value <= most) else None

    def _report(self, files: Iterable[OpenFile]) -> None:
        for path, fd, begin in files:
            if not _has_lines(path, fd):
                self._without_lines.add(path)
            name = ctypes.c_char_p(path)
            if not self._dw.dwfl_report_elf(self._dwfl, name, name, fd, _Word(begin), False):
                os.close(fd)
        self._dw.dwfl_report_end(self._dwfl, None, None)

    def _next_thread(self, dwfl: int, argument: int, state: Any) -> int:
        """Return the one thread that there is, and then none."""
        if state[0]:
            return 0
        state[0] = 1
        return self._tgid

    def _read_memory(self, dwfl: int, address: int, value: Any, argument: int) -> bool:
        at = address - self._begin
        if not 0 <= at <= len(self._copy.stack) - 8:
            return False
        value[0] = int.from_bytes(self._copy.stack[at : at + 8], "little")
        return True

    def _set_registers(self, thread: int, argument: int) -> bool:
        values = (_Word * len(_DWARF))(*self._registers)
        return bool(self._dw.dwfl_thread_state_registers(_Pointer(thread), 0, len(_DWARF), values))

    def _take_frame(self, frame: int, argument: int) -> int:
        address = _Word()
        if not self._dw.dwfl_frame_pc(_Pointer(frame), ctypes.byref(address), None) or not address.value:
            return 1
        self._addresses.append(address.value)
        return int(len(self._addresses) >= _MOST_FRAMES)


def _mapped_files(folder: Path) -> Iterator[OpenFile]:
    """Yield the files that a process has mapped with code, as far as they can be opened."""
    for file in _files(folder)[:_MOST_FILES]:
        with suppress(OSError):
            yield OpenFile(file.path, _open(folder / "map_files" / file.link), file.begin)


def _files(folder: Path) -> list[_File]:
    """Return the files that are mapped with code, each with the mapping of its beginning (proc_pid_maps(5)).

    That is the last one before the code: a program may also read the file as data, mapped elsewhere.
    """
    begins: dict[tuple[tuple[int, int], int, bytes], _File] = {}
    found: dict[_File, None] = {}
    for one in read_maps(folder):
        if not one.inode:
            continue
        file = (one.device, one.inode, one.name)
        if one.offset == 0:
            begins[file] = _File(one.name, one.place, one.start)
        if "x" in one.permissions and file in begins:
            found[begins[file]] = None
    return [*found]


def _has_lines(path: bytes, fd: int) -> bool:
    """Return whether a file is searched for lines: it may be of a program, and libdw reads it in a second,
    into little memory. Sections that are not compressed are mapped."""
    name = path.rpartition(b"/")[2].decode(errors="backslashreplace")
    size = os.fstat(fd).st_size
    if not may_be_of_program(name) or size > _MOST_LINES_BYTES:
        return False
    with suppress(ValueError, CutOffError, struct.error):
        return ElfFile(fd, size).unpacked_bytes() <= _MOST_UNPACKED_BYTES
    return False


def _open(path: Path) -> int:
    """Open a mapped file. Raises OSError unless it is a regular file with code of this machine."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    head = os.pread(fd, 20, 0)
    if (head[:6], head[18:20]) != _ELF_64_X86_64:
        os.close(fd)
        raise OSError("no code of this machine")
    return fd
