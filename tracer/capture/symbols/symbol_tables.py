"""Symbol tables by BCC's library (src/cc/bcc_syms.h), in child processes.

BCC reads files of processes that may end meanwhile, and anyone may have made those files. If a process ends
at a bad moment, BCC 0.31 closes a descriptor of a random number (ProcSyms::ModulePath in src/cc/syms.h leaves
`fd_` uninitialised). In the recorder, this could be the descriptor of a map or of the trace.

BCC's Python package, which is not used here, takes twice as long to load.

Functions that a just-in-time compiler made are named by its perf map: `/tmp/perf-PID.map` in the process's
own root has a line `START SIZE NAME` for each function, both numbers in hexadecimal
(tools/perf/Documentation/jit-interface.txt of the kernel). Anyone can make a file of that name, so it is read
only if it is a regular file of the process's user or of root, and only up to a bound.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import stat
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from tracer.capture.symbols.address_names import (
    CodeTable,
    ExecImage,
    ProcessTable,
    Resolved,
    SourceFrame,
    StackCopy,
    SymbolTable,
    UserSymbols,
)
from tracer.capture.symbols.program_files import ProgramFile, ProgramFiles, open_program
from tracer.capture.symbols.unwinding import OpenFile, Unwinder, why_not
from tracer.errors import TracerError
from tracer.kernel.anatomy.own_files import identity, open_file
from tracer.kernel.process.children import end_child, end_with_parent
from tracer.kernel.process.mapped_ranges import read_maps
from tracer.wire.fields import LENGTHS

_MOST_BYTES: Final = 32 << 20  # in all, however often the file is truncated: about 500,000 functions
_MOST_ADDRESS: Final = 1 << 64
_PROC: Final = Path("/proc")
_SHARED: Final = Path("/tmp")  # where BCC looks, too (bcc_procutils_each_module, src/cc/bcc_proc.c)


class PerfMap:
    """The functions in a process's perf map. The last line on an address counts: code memory is reused."""

    def __init__(self, tgid: int, proc: Path = _PROC) -> None:
        self._folder = proc / str(tgid)
        self._user, number = identity(self._folder, tgid)
        self._name = f"perf-{number}.map"
        self._left_bytes = _MOST_BYTES
        self._read_from = 0
        self._functions: dict[int, tuple[int, str]] = {}  # start -> end, name
        self._starts: list[int] = []

    @property
    def path(self) -> Path:
        """Return the path of the map in the process's root."""
        return self._folder / "root" / "tmp" / self._name

    def name(self, address: int) -> tuple[str, int] | None:
        """Return the function at an address, and the offset in it. New lines of the file are read first."""
        self._read_on()
        position = bisect_right(self._starts, address)
        if not position:
            return None
        start = self._starts[position - 1]
        end, name = self._functions[start]
        return (name, address - start) if address < end else None

    def _read_on(self) -> None:
        try:
            fd = open_file(self._folder, self._user, self._name)
        except OSError:
            return
        try:
            status = os.fstat(fd)
            if status.st_size < self._read_from:  # truncated and written again
                self._read_from = 0
                self._functions.clear()
                self._starts.clear()
            if status.st_size > self._read_from and self._left_bytes:
                new_bytes = min(self._left_bytes, status.st_size - self._read_from)
                self._take(_pread(fd, new_bytes, self._read_from))
        finally:
            os.close(fd)

    def _take(self, content: bytes) -> None:
        """Take whole lines; a line of another form is skipped."""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and len(content) == self._left_bytes:  # no line ends within the bound
            whole = content
        self._read_from += len(whole)
        self._left_bytes -= len(whole)
        for line in whole.split(b"\n"):
            fields = line.split(None, 2)
            if len(fields) < 3:
                continue
            try:
                start, size = int(fields[0], 16), int(fields[1], 16)
            except ValueError:
                continue
            if 0 <= start < _MOST_ADDRESS and 0 < size <= _MOST_ADDRESS - start:
                self._functions[start] = start + size, fields[2].decode(errors="backslashreplace")
        self._starts = sorted(self._functions)


class CodeSymbols:
    """A `CodeTable` of a process, as of now.

    libdw names code in files, and the perf map names the rest. Without libdw, the table that `make` makes
    names code in files: BCC's, whose library takes some 25 MiB. BCC also reads perf maps, of any owner and
    any kind. Its names from them are not used, and it gets no request while one of them is a link, a pipe or
    larger than the bound: it would read a link to /dev/zero until there is no memory.
    """

    def __init__(
        self, make: Callable[[], SymbolTable], tgid: int, proc: Path = _PROC, shared: Path = _SHARED
    ) -> None:
        self._map = PerfMap(tgid, proc)
        self._read_by_bcc = (self._map.path, shared / f"perf-{tgid}.map")
        self._table: SymbolTable | None = None
        self._in_files = _code_in_files(proc / str(tgid))
        self._unwinder: Unwinder | None = None
        if why_not() is None:
            with suppress(OSError, TracerError):
                self._unwinder = Unwinder(tgid, proc)
        if self._unwinder is None and self._is_bcc_safe():
            self._table = make()

    def resolve(self, address: int) -> Resolved:
        """See `SymbolTable.resolve`; a name from the perf map has no module."""
        is_in_file = any(start <= address < end for start, end in self._in_files)
        if is_in_file and self._unwinder is not None:
            named = self._unwinder.resolve(address)
            if named.module is not None:
                return named
        if is_in_file and self._table is not None and self._is_bcc_safe():
            named = self._table.resolve(address)
            if named.module is None or not named.module.endswith(".map"):
                return named
        found = self._map.name(address)
        return Resolved(None, address, None) if found is None else Resolved(*found, None)

    def unwind(self, copy: StackCopy) -> list[int]:
        """See `CodeTable.unwind`."""
        return [] if self._unwinder is None else self._unwinder.unwind(copy)

    def close(self) -> None:
        if self._table is not None:
            self._table.close()

    def _is_bcc_safe(self) -> bool:
        """Return whether each perf map that BCC would read is absent, or a regular file within the bound."""
        for path in self._read_by_bcc:
            with suppress(OSError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                    return False
        return True


class ProgramSymbols:
    """A `CodeTable` of a process that is gone: the code of its program, without libraries.

    Raises OSError or TracerError if the file is another one by now, or if libdw is missing.
    """

    def __init__(self, tgid: int, program: ProgramFile) -> None:
        placed = open_program(program)
        self._code = placed.code
        self._unwinder = Unwinder(tgid, program=OpenFile(os.fsencode(program.path), placed.fd, placed.begin))

    def resolve(self, address: int) -> Resolved:
        """See `SymbolTable.resolve`."""
        if not any(address in code for code in self._code):
            return Resolved(None, address, None)
        return self._unwinder.resolve(address)

    def unwind(self, copy: StackCopy) -> list[int]:
        """See `CodeTable.unwind`."""
        return self._unwinder.unwind(copy)

    def close(self) -> None:
        """Free nothing: the child ends instead."""


def _code_in_files(folder: Path) -> Sequence[tuple[int, int]]:
    """Return the address ranges of code that lies in files or in [vdso] (proc_pid_maps(5))."""
    try:
        mapped = read_maps(folder)
    except OSError:
        return []
    return [
        (one.start, one.end)
        for one in mapped
        if "x" in one.permissions and (one.inode or one.name == b"[vdso]")
    ]


def _pread(fd: int, count: int, offset: int) -> bytes:
    try:
        return os.pread(fd, count, offset)
    except OSError:
        return b""


_OUT_OF_THE_WAY: Final = 200  # above BCC's own descriptors, and above the numbers that it may close
_MESSAGE_BYTES: Final = 1 << 16
_LONGEST_NAME: Final = 4096
_ANSWERS_WITHIN_S: Final = 30.0  # the symbols of a browser, on a busy machine
_MOST_CPU_S: Final = 10.0  # until the table is made, and of an answer
_MOST_MEMORY_BYTES: Final = 4 << 30  # more than the parent's: a hostile symbol file may need any amount
_ADDRESS_MASK: Final = (1 << 64) - 1
_ADDRESS_BYTES: Final = 8
_MOST_REQUESTS: Final = 64  # on their way at once: few enough for the buffer of a socket
_REGISTERS_BYTES: Final = 8 * LENGTHS["TRACER_REGISTERS"]
_MADE: Final = b"+"
_NICE: Final = 5  # once the table is made: until then the process may end


class SymbolProcess:
    """A `CodeTable` that `make` makes in a child process, which runs until `close`.

    It resolves and unwinds nothing once the child has ended or did not answer in time. The kernel ends a
    child that computes for too long, as libdw may on a hostile file.
    """

    def __init__(self, make: Callable[[], CodeTable]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _serve(make, theirs.fileno())
        theirs.close()
        self._socket.settimeout(_ANSWERS_WITHIN_S)
        self._is_ready = False
        with suppress(OSError):
            self._is_ready = self._socket.recv(1) == _MADE  # wait: the table is as of now

    def resolve_all(self, addresses: Sequence[int]) -> list[Resolved]:
        """See `ProcessTable.resolve_all`; any address is allowed."""
        found: list[Resolved] = []
        for begin in range(0, len(addresses), _MOST_REQUESTS):
            some = addresses[begin : begin + _MOST_REQUESTS]
            requests = [(one & _ADDRESS_MASK).to_bytes(_ADDRESS_BYTES, "little") for one in some]
            found += map(_resolved, some, self._ask(requests))
        return found

    def unwind(self, copy: StackCopy) -> list[int]:
        """See `ProcessTable.unwind`."""
        (answer,) = self._ask((copy.registers + copy.stack,))
        return answer or []

    def _ask(self, requests: Sequence[bytes]) -> list[list[Any] | None]:
        """Return the answers of the child; None: there is none.

        The child has all requests at once: on a busy machine, each turn of the two takes milliseconds.
        """
        answers: list[list[Any] | None] = []
        if self._is_ready:
            self._is_ready = False  # a late answer must not be taken for the answer to the next request
            with suppress(OSError, ValueError):
                for request in requests:
                    self._socket.send(request)
                for _ in requests:
                    answers.append(json.loads(self._socket.recv(_MESSAGE_BYTES)))  # noqa: PERF401  those that came
                self._is_ready = True
        return answers + [None] * (len(requests) - len(answers))

    def close(self) -> None:
        end_child(self._child, self._socket, is_idle=self._is_ready)


def user_symbols(table_of: Callable[[int], SymbolTable], programs: ProgramFiles | None = None) -> UserSymbols:
    """Return names for addresses of processes; each table is made in a child, and completed by the perf map.

    `table_of` makes the symbol table of the files that a process (tgid) has mapped. `programs` knows which
    files processes ran that are gone.
    """

    def table_of_ended(tgid: int, image: ExecImage) -> ProcessTable | None:
        program = None if programs is None or why_not() is not None else programs.of(tgid, image)
        return None if program is None else SymbolProcess(lambda: ProgramSymbols(tgid, program))

    return UserSymbols(
        lambda tgid: SymbolProcess(lambda: CodeSymbols(lambda: table_of(tgid), tgid)),
        table_of_ended=table_of_ended,
    )


def _serve(make: Callable[[], CodeTable], fd: int) -> NoReturn:
    """Serve requests in the child, which keeps no descriptor of its parent and ends with it."""
    try:
        end_with_parent()
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
        os.dup2(fd, _OUT_OF_THE_WAY)
        os.closerange(0, _OUT_OF_THE_WAY)
        os.closerange(_OUT_OF_THE_WAY + 1, last + 1)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        bound = _address_space_bytes() + _MOST_MEMORY_BYTES
        with suppress(OSError, ValueError):  # the hard limit is lower
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        with socket.socket(fileno=_OUT_OF_THE_WAY) as ours:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the tracer's starter may have changed both
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
            signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)
            table = make()
            ours.send(_MADE)
            os.nice(_NICE)
            while request := ours.recv(_MESSAGE_BYTES):
                signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)
                ours.send(_answer(table, request))
    finally:
        os._exit(0)


def _resolved(address: int, answer: list[Any] | None) -> Resolved:
    if answer is None:
        return Resolved(None, address, None)
    symbol, offset, module, source, begin = answer
    return Resolved(symbol, offset, module, tuple(SourceFrame(*one) for one in source), begin)


def _answer(table: CodeTable, request: bytes) -> bytes:
    """Return what is at an address (see `Resolved`), or the addresses of a copied stack."""
    if len(request) > _ADDRESS_BYTES:
        with suppress(Exception):
            copy = StackCopy(request[:_REGISTERS_BYTES], request[_REGISTERS_BYTES:])
            return _message([*table.unwind(copy)])
        return _message([])
    symbol, offset, module, source, begin = _resolve(table, int.from_bytes(request, "little"))
    named = [_cut(symbol), offset, _cut(module)]
    whole = _message([*named, source, begin])
    return whole if len(whole) <= _MESSAGE_BYTES else _message([*named, [], begin])


def _message(answer: list[Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode(errors="surrogatepass")


def _resolve(table: SymbolTable, address: int) -> Resolved:
    """Resolve an address; a failure for one address does not end the child."""
    try:
        return table.resolve(address)
    except Exception:
        return Resolved(None, address, None)


def _address_space_bytes() -> int:
    with open("/proc/self/statm", "rb") as stream:  # noqa: PTH123
        return int(stream.read().split()[0]) * mmap.PAGESIZE


def _cut(name: str | None) -> str | None:
    return None if name is None else name[:_LONGEST_NAME]


class _Symbol(ctypes.Structure):
    """struct bcc_symbol."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("demangled", ctypes.c_void_p),  # freed by BCC
        ("module", ctypes.c_char_p),
        ("offset", ctypes.c_uint64),
    )


class BccSymbols:
    """BCC's symbol table of a process, as of now. Raises OSError if BCC is not installed.

    It covers the modules that the process has mapped, read in its mount namespace with their debug files, and
    the perf map of a just-in-time compiler (/tmp/perf-PID.map). A module's symbols are read at the first
    look-up in it. Modules that are mapped later are missing.
    """

    def __init__(self, tgid: int) -> None:
        self._library = ctypes.CDLL("libbcc.so.0")
        self._library.bcc_symcache_new.restype = ctypes.c_void_p
        self._cache = ctypes.c_void_p(self._library.bcc_symcache_new(tgid, None))
        self._tgid = tgid

    def resolve(self, address: int) -> Resolved:
        """See `SymbolTable.resolve`."""
        found = _Symbol()
        failed = self._library.bcc_symcache_resolve(
            self._cache, ctypes.c_uint64(address), ctypes.byref(found)
        )
        module = _text(found.module)
        if failed:
            return Resolved(None, found.offset if module else address, module)
        symbol = _text(ctypes.cast(found.demangled, ctypes.c_char_p).value)
        self._library.bcc_symbol_free_demangle_name(ctypes.byref(found))
        return Resolved(symbol, found.offset, module)

    def close(self) -> None:
        """Free the table, which has a file open for each module."""
        self._library.bcc_free_symcache(self._cache, self._tgid)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="backslashreplace")
