"""The answers of a file system with one file, as the kernel reads them (include/uapi/linux/fuse.h)."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

import pytest

from tracer.lab.disks.fuse import OneFile, Opcode, Request

SIZES = {
    Opcode.INIT: 64,  # struct fuse_init_out
    Opcode.LOOKUP: 128,  # struct fuse_entry_out
    Opcode.GETATTR: 104,  # struct fuse_attr_out
    Opcode.FLUSH: 0,
}
UNKNOWN = 40  # FUSE_POLL


class Small(OneFile):
    flags = 1
    mode = 0o500
    size_bytes = 777

    def has(self, name: bytes) -> bool:
        return name == b"small"


def answer_to(opcode: int, *, body: bytes = b"small\0", node: int = 2) -> tuple[int, bytes]:
    """Return the error and the rest of the answer to a request of number 99."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Small(ours.fileno(), 16).answer(Request(opcode, 99, node, 1, body))
        message = theirs.recv(4096)
    length, error, unique = struct.unpack_from("=IiQ", message)
    assert (length, unique) == (len(message), 99)
    return -error, message[16:]


@pytest.mark.parametrize(("opcode", "size"), SIZES.items())
def test_answer_has_the_size_of_its_structure(opcode: Opcode, size: int) -> None:
    error, answer = answer_to(opcode)
    assert (error, len(answer)) == (0, size)


def test_file_that_is_not_there_and_unknown_requests_are_errors() -> None:
    assert answer_to(Opcode.LOOKUP, body=b"smal\0") == (errno.ENOENT, b"")
    assert answer_to(UNKNOWN) == (errno.ENOSYS, b"")


@pytest.mark.parametrize(
    ("node", "size", "mode"), [(1, 0, stat.S_IFDIR | 0o700), (2, 777, stat.S_IFREG | 0o500)]
)
def test_attributes_are_those_of_the_node(node: int, size: int, mode: int) -> None:
    _, answer = answer_to(Opcode.GETATTR, node=node)
    inode, found = struct.unpack_from("=2Q", answer, 16)
    (found_mode,) = struct.unpack_from("=I", answer, 16 + 60)
    assert (inode, found, found_mode) == (node, size, mode)


def test_request_has_its_place_in_the_file() -> None:
    body = struct.pack("=QQI", 5, 4096, 8192)
    header = struct.pack("=IIQQIIII", 40 + len(body), Opcode.READ, 7, 2, 0, 0, os.getpid(), 0)
    request = Request.from_bytes(header + body)
    assert (request.opcode, request.unique, request.node, request.pid) == (Opcode.READ, 7, 2, os.getpid())
    assert request.place() == (4096, 8192)
