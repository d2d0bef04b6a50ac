"""Moves every category of memory up and down, and keeps some of each.

Usage: every_category.py DIR NUMBER ROUNDS. The amounts that are kept depend on NUMBER. Prints `kept` at the
end of the work, then keeps the memory until its input ends.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from tracer.capture.bpf.syscall import RETURN_0, ProgramType, create_map, load_program
from tracer.capture.learn.stimuli import STIMULI

_BPF_MAP_TYPE_ARRAY: Final = 2  # enum bpf_map_type
_MADV_PAGEOUT: Final = 21  # include/uapi/asm-generic/mman-common.h
_kept: list[object] = []


def fork_and_provoke(number: int) -> None:
    """Run each stimulus once, in a child process."""
    child = os.fork()
    if child == 0:
        try:
            for stimulus in STIMULI:
                stimulus.act()
            write_and_drop(number)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def touched(size_bytes: int, flags: int) -> mmap.mmap:
    """Map memory and touch each page of it."""
    area = mmap.mmap(-1, size_bytes, flags)
    for page in range(0, len(area), mmap.PAGESIZE):
        area[page] = 1
    return area


def write_and_drop(number: int) -> None:
    """Write a file through to the disk, which causes interrupts meanwhile, and remove it."""
    file = Path(sys.argv[1], f"dropped-{os.getpid()}-{number}")
    with file.open("wb", buffering=0) as stream:
        stream.write(bytes((17 + number % 5) * mmap.PAGESIZE))
        os.fsync(stream.fileno())
    file.unlink()


def keep_swapped() -> None:
    """Have some anonymous memory swapped out, if swap is enabled."""
    area = touched(37 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(_MADV_PAGEOUT)
    _kept.append(area)


def keep_in_flight() -> None:
    """Send data over loopback that is never received."""
    server = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(server.getsockname())
    _kept.append((sender, server.accept(), server))
    sender.setblocking(False)
    while True:
        try:
            sender.send(bytes(64 << 10))
        except BlockingIOError:
            return


def keep(directory: Path, number: int) -> None:
    """Keep some memory of every category."""
    _kept.append(touched((301 + number) * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    _kept.append(touched((43 + number) * mmap.PAGESIZE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    (directory / f"kept-{number}").write_bytes(bytes((127 + number) * mmap.PAGESIZE))
    for _ in range(3 + number):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    _kept.extend(os.pipe() for _ in range(29))
    for name in range(211):
        (directory / f"empty-{number}-{name}").touch()
    _kept.append(create_map(_BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4096, entries=64))
    _kept.extend(load_program(RETURN_0, ProgramType.RAW_TRACEPOINT, "kept") for _ in range(149))
    keep_in_flight()
    keep_swapped()


def main() -> None:
    directory, number, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for round_number in range(rounds):
        fork_and_provoke(round_number)
    keep(directory, number)
    print("kept", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
