"""A FUSE file system with one file (Documentation/filesystems/fuse, include/uapi/linux/fuse.h).

A process of the lab serves the file system, and mounts it in its own mount namespace. So no other process
sees the mount, which disappears with the server. The server ends with the process that started it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from tracer.errors import TracerError
from tracer.kernel.process.children import start_module
from tracer.lab.workload.namespaces import mount_privately

READ_AHEAD_BYTES: Final = 128 << 10
_VERSION: Final = (7, 31)
_WRITE_BYTES: Final = 1 << 20
_ROOT, _FILE = 1, 2  # node ids
_VALID_S: Final = 3600
_POLL_S: Final = 0.05
_HEADER: Final = struct.Struct("=IIQQIIII")  # struct fuse_in_header


class Opcode(IntEnum):
    """The values of enum fuse_opcode that the servers answer."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42


_UNANSWERED: Final = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)


@dataclass(frozen=True)
class Request:
    """A request of the kernel; `pid` is the process that caused it."""

    opcode: int
    unique: int
    node: int
    pid: int
    body: bytes

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        _, opcode, unique, node, _, _, pid, _ = _HEADER.unpack_from(message)
        return cls(opcode, unique, node, pid, message[_HEADER.size :])

    def place(self) -> tuple[int, int]:
        """Return the offset and the length of a struct fuse_read_in or fuse_write_in."""
        offset, length = struct.unpack_from("=8xQI", self.body)
        return offset, length


class OneFile:
    """Answers the requests on `connection`: the common part of all file systems with one file.

    `flags` is the field of struct fuse_init_out, and `most_at_once` is the most writes and reads ahead that
    the kernel has under way.
    """

    flags: int
    mode: int
    size_bytes = 0

    def __init__(self, connection: int, most_at_once: int) -> None:
        self._connection = connection
        self._most_at_once = most_at_once

    def serve(self, until_readable: int) -> None:
        """Answer requests until the descriptor `until_readable` is readable."""
        while True:
            readable, _, _ = select.select([self._connection, until_readable], [], [], _POLL_S)
            if until_readable in readable:
                return
            if self._connection in readable:
                request = Request.from_bytes(os.read(self._connection, _WRITE_BYTES + 4096))
                if request.opcode not in _UNANSWERED:
                    self.answer(request)
            self.look()

    def look(self) -> None:
        """Do the work that is due; called after each request and several times a second."""

    def has(self, name: bytes) -> bool:
        """Return whether there is a file of this name."""
        raise NotImplementedError

    def answer(self, request: Request) -> None:
        """Answer a request, at once or later."""
        if request.opcode == Opcode.LOOKUP and not self.has(request.body.rstrip(b"\0")):
            self.reply(request, error=errno.ENOENT)
            return
        answer = self._plain_answer(request)
        self.reply(request, answer or b"", 0 if answer is not None else errno.ENOSYS)

    def reply(self, request: Request, answer: bytes = b"", error: int = 0) -> None:
        header = struct.pack("=IiQ", 16 + len(answer), -error, request.unique)  # struct fuse_out_header
        try:
            os.write(self._connection, header + answer)
        except FileNotFoundError:
            return  # the request was interrupted

    def entry(self) -> bytes:
        """Return a struct fuse_entry_out for the file."""
        return struct.pack("=4Q2I", _FILE, 0, _VALID_S, _VALID_S, 0, 0) + self._attributes(_FILE)

    def _plain_answer(self, request: Request) -> bytes | None:
        match request.opcode:
            case Opcode.INIT:  # struct fuse_init_out
                pages = _WRITE_BYTES // os.sysconf("SC_PAGESIZE")
                limits = (0xFFFF, self._most_at_once, _WRITE_BYTES, 1, pages)
                return struct.pack("=4I2H2IH34x", *_VERSION, READ_AHEAD_BYTES, self.flags, *limits)
            case Opcode.GETATTR | Opcode.SETATTR:  # struct fuse_attr_out
                return struct.pack("=QII", _VALID_S, 0, 0) + self._attributes(request.node)
            case Opcode.LOOKUP:
                return self.entry()
            case Opcode.FLUSH | Opcode.RELEASE:
                return b""
        return None

    def _attributes(self, node: int) -> bytes:
        """Return a struct fuse_attr for a node."""
        mode = stat.S_IFDIR | 0o700 if node == _ROOT else stat.S_IFREG | self.mode
        size_bytes = 0 if node == _ROOT else self.size_bytes
        return struct.pack("=6Q10I", node, size_bytes, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def served(module: str, *arguments: str) -> Iterator[Path]:
    """Run a module that calls `serve`, and yield the path of its directory, which any process can use.

    The file system is gone at the end. Raises TracerError.
    """
    with start_module(module, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            answer = os.fsdecode(server.stdout.readline()).rstrip("\n")
            if not answer.startswith("/"):
                raise TracerError(answer or f"the slow file system ended with status {server.wait()}")
            yield Path(answer)
        finally:
            server.kill()


def serve(directory: str, make: Callable[[int], OneFile]) -> int:
    """Mount, print the path, and serve until the end of standard input; on failure, print the reason in one
    line.

    After the mount at `directory`, `make` returns the file system for the connection to the kernel. Return
    the exit status.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the maker, which must end the processes that wait for the server
    try:
        connection = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        mount_privately("fuse", directory, f"fd={connection},rootmode=40000,user_id=0,group_id=0")
        file_system = make(connection)
    except OSError as error:
        print(f"cannot make a slow file system ({error}): it needs root and FUSE (modprobe fuse)", flush=True)
        return 1
    print(f"/proc/{os.getpid()}/root{directory}", flush=True)
    file_system.serve(until_readable=sys.stdin.fileno())
    return 0
