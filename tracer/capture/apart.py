"""A table of symbols in a process of its own.

BCC reads files of processes that may end meanwhile, and that anyone may have made. Where one ends in the
middle of it, BCC 0.31 closes a descriptor of any number (ProcSyms::ModulePath in src/cc/syms.h, whose `fd_`
has no value then): here, it would be that of a map, or of the trace.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from tracer.capture.symbols import SymbolTable

_OUT_OF_THE_WAY: Final = (
    200  # BCC's own descriptors are lower, and so are the numbers that it may take for one
)
_MESSAGE_BYTES: Final = 1 << 16
_LONGEST_NAME: Final = 4096
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)


class TableApart:
    """A `SymbolTable` made by `make` in a child of this process, which is there until `close`.

    It knows no symbol any more when the child came to an end.
    """

    def __init__(self, make: Callable[[], SymbolTable]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _serve(make, theirs.fileno())
        theirs.close()
        with suppress(OSError):
            self._socket.recv(1)  # it is made, as of now

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """As `SymbolTable.resolve`."""
        with suppress(OSError):
            self._socket.send(address.to_bytes(8, "little"))
            if answer := self._socket.recv(_MESSAGE_BYTES):
                symbol, offset, module = json.loads(answer)
                return symbol, offset, module
        return None, address, None

    def close(self) -> None:
        """End the child."""
        self._socket.close()
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


def ends_with_its_parent() -> None:
    """For a child of a fork: what asks its parent to end, as Ctrl-C does, leaves it alone until then."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(make: Callable[[], SymbolTable], fd: int) -> NoReturn:
    """The child: it keeps nothing of its parent's, and ends with it."""
    try:
        ends_with_its_parent()
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
        os.dup2(fd, _OUT_OF_THE_WAY)
        os.closerange(0, _OUT_OF_THE_WAY)
        os.closerange(_OUT_OF_THE_WAY + 1, last + 1)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        with socket.socket(fileno=_OUT_OF_THE_WAY) as ours:
            table = make()
            ours.send(b"+")
            while request := ours.recv(8):
                symbol, offset, module = table.resolve(int.from_bytes(request, "little"))
                ours.send(json.dumps([_cut(symbol), offset, _cut(module)]).encode())
    finally:
        os._exit(0)


def _cut(name: str | None) -> str | None:
    return None if name is None else name[:_LONGEST_NAME]
