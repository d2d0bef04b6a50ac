"""The anonymous memory of processes, by mapping. A child reads it, since a process can block who reads its
mappings: while one of its threads waits for a file system of its own with the lock of its memory held."""

from __future__ import annotations

import json
import mmap
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from tracer.capture.contents.held import HeldMapping, HeldProcess
from tracer.kernel.anatomy.process_anatomy import PROC, read_process
from tracer.kernel.process.children import end_with_parent, forked, kill_child
from tracer.kernel.process.priority import prefer_this_thread
from tracer.stored_names import stored_name

_ANSWERS_WITHIN_S: Final = 10.0
"""The most time for one process: twenty times what a large one takes."""

_MOST_FAILURES: Final = 3
_CHUNK_BYTES: Final = 1 << 16
_UNREAD: Final = "unread"


def read_processes(tgids: Sequence[int]) -> Iterator[HeldProcess | None]:
    """Yield the anonymous memory of each process, in this order; None if it has ended, or has none.

    A process whose mappings cannot be read in time has its memory in one mapping of the kind `unread`. After
    three such processes, no other one is read.
    """
    left, failures = list(tgids), 0
    while left:
        if failures < _MOST_FAILURES:
            for answer in _answers(left):
                yield _from_answer(answer)
                left.pop(0)
        if left:
            yield _unread(left.pop(0))
            failures += 1


def _answers(tgids: Sequence[int]) -> Iterator[Any]:
    """Yield the answer of a child about each process, until one comes too late or the child ends."""
    reader, writer = os.pipe()

    def work() -> None:
        end_with_parent()
        prefer_this_thread()  # the parent waits, maybe with a higher priority that its child lacks
        os.close(reader)
        with os.fdopen(writer, "w") as stream:
            for tgid in tgids:
                held = _read(tgid)
                print(json.dumps(None if held is None else asdict(held)), file=stream, flush=True)

    child = forked(work)
    os.close(writer)
    try:
        yield from map(json.loads, _lines(reader))
    finally:
        os.close(reader)
        kill_child(child)


def _lines(reader: int) -> Iterator[bytes]:
    """Yield the lines of a pipe until its end, or until nothing comes in time."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    rest = b""
    while poll.poll(_ANSWERS_WITHIN_S * 1e3) and (chunk := os.read(reader, _CHUNK_BYTES)):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _from_answer(answer: dict[str, Any] | None) -> HeldProcess | None:
    if answer is None:
        return None
    mappings = [HeldMapping(**mapping) for mapping in answer["mappings"]]
    return HeldProcess(**answer | {"mappings": mappings})


def _read(tgid: int) -> HeldProcess | None:
    anatomy = read_process(tgid, runtimes=False)
    groups = anatomy.groups if anatomy is not None else []
    mappings = [
        HeldMapping(group.kind, stored_name(group.name), group.anon_bytes)
        for group in groups
        if group.kind != _UNREAD and group.anon_bytes
    ]
    rest = _anon_bytes(tgid) - sum(one.bytes for one in mappings)
    mappings += [
        HeldMapping(_UNREAD, stored_name(group.name), rest)
        for group in groups
        if group.kind == _UNREAD and rest > 0
    ]
    return _held(tgid, mappings)


def _unread(tgid: int) -> HeldProcess | None:
    return _held(tgid, [HeldMapping(_UNREAD, "its mappings could not be read", _anon_bytes(tgid))])


def _held(tgid: int, mappings: list[HeldMapping]) -> HeldProcess | None:
    try:
        comm = (PROC / str(tgid) / "comm").read_bytes().removesuffix(b"\n")
    except OSError:
        return None
    size = sum(one.bytes for one in mappings)
    mappings.sort(key=lambda one: -one.bytes)
    return HeldProcess(tgid, stored_name(comm), size, mappings) if size else None


def _anon_bytes(tgid: int) -> int:
    """Return the anonymous memory of a process without its mappings, which needs no lock: resident less
    shared, which is pages of files and shmem (statm in proc(5)). 0 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        _, resident, shared, *_ = map(int, (PROC / str(tgid) / "statm").read_bytes().split())
        return max(resident - shared, 0) * mmap.PAGESIZE
    return 0
