"""Symbol tables by BCC's library (src/cc/bcc_syms.h), in child processes.

BCC reads files of processes that may end meanwhile, and anyone may have made those files. If a process ends
at a bad moment, BCC 0.31 closes a descriptor of a random number (ProcSyms::ModulePath in src/cc/syms.h leaves
`fd_` uninitialised). In the recorder, this could be the descriptor of a map or of the trace.

BCC's Python package, which is not used here, takes twice as long to load.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from tracer.capture.symbols.address_names import SymbolTable, UserSymbols
from tracer.capture.symbols.perf_map import CodeSymbols
from tracer.kernel.process.forked_child import end_with_parent

_OUT_OF_THE_WAY: Final = 200  # above BCC's own descriptors, and above the numbers that it may close
_MESSAGE_BYTES: Final = 1 << 16
_LONGEST_NAME: Final = 4096
_ANSWERS_WITHIN_S: Final = 30.0  # the symbols of a browser, on a busy machine
_MOST_MEMORY_BYTES: Final = 4 << 30  # more than the parent's: a hostile symbol file may need any amount
_ADDRESS_MASK: Final = (1 << 64) - 1
_MADE: Final = b"+"


class SymbolProcess:
    """A `SymbolTable` that `make` makes in a child process, which runs until `close`.

    It resolves nothing once the child has ended or did not answer in time.
    """

    def __init__(self, make: Callable[[], SymbolTable]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _serve(make, theirs.fileno())
        theirs.close()
        self._socket.settimeout(_ANSWERS_WITHIN_S)
        self._is_ready = False
        with suppress(OSError):
            self._is_ready = self._socket.recv(1) == _MADE  # wait: the table is as of now

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """See `SymbolTable.resolve`; any address is allowed."""
        if self._is_ready:
            self._is_ready = False  # a late answer must not be taken for the answer to the next request
            with suppress(OSError, ValueError):
                self._socket.send((address & _ADDRESS_MASK).to_bytes(8, "little"))
                symbol, offset, module = json.loads(self._socket.recv(_MESSAGE_BYTES))
                self._is_ready = True
                return symbol, offset, module
        return None, address, None

    def close(self) -> None:
        """End the child."""
        self._socket.close()
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


def user_symbols(table_of: Callable[[int], SymbolTable]) -> UserSymbols:
    """Return names for addresses of processes; each table is made in a child, and completed by the perf map.

    `table_of` makes the symbol table of the files that a process (tgid) has mapped.
    """
    return UserSymbols(lambda tgid: SymbolProcess(lambda: CodeSymbols(lambda: table_of(tgid), tgid)))


def _serve(make: Callable[[], SymbolTable], fd: int) -> NoReturn:
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
            table = make()
            ours.send(_MADE)
            while request := ours.recv(8):
                symbol, offset, module = _resolve(table, int.from_bytes(request, "little"))
                ours.send(json.dumps([_cut(symbol), offset, _cut(module)]).encode())
    finally:
        os._exit(0)


def _resolve(table: SymbolTable, address: int) -> tuple[str | None, int, str | None]:
    """Resolve an address; a failure for one address does not end the child."""
    try:
        return table.resolve(address)
    except Exception:
        return None, address, None


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

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """Return (symbol, offset in it, path of the module).

        Without a symbol, the offset is relative to the module; without a module, it is the address.
        """
        found = _Symbol()
        failed = self._library.bcc_symcache_resolve(
            self._cache, ctypes.c_uint64(address), ctypes.byref(found)
        )
        module = _text(found.module)
        if failed:
            return None, found.offset if module else address, module
        symbol = _text(ctypes.cast(found.demangled, ctypes.c_char_p).value)
        self._library.bcc_symbol_free_demangle_name(ctypes.byref(found))
        return symbol, found.offset, module

    def close(self) -> None:
        """Free the table, which has a file open for each module."""
        self._library.bcc_free_symcache(self._cache, self._tgid)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="backslashreplace")
