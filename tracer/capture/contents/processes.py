"""The anonymous memory of processes, by mapping. A child reads it, since a process can block who reads its
mappings: while one of its threads waits for a file system of its own with the lock of its memory held."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from tracer.capture.contents.held import HeldMapping, HeldProcess
from tracer.kernel.anatomy.process_anatomy import PROC, read_process
from tracer.kernel.process.asked_child import AskedChild
from tracer.stored_names import stored_name

_ANSWERS_WITHIN_S: Final = 10.0
"""The most time for one process: twenty times what a large one takes."""

_MOST_FAILURES: Final = 3
_UNREAD: Final = "unread"


def read_processes(tgids: Sequence[int]) -> Iterator[HeldProcess | None]:
    """Yield the anonymous memory of each process, in this order; None if it has ended, or has none.

    A process whose mappings cannot be read in time has its memory in one mapping of the kind `unread`. After
    three such processes, no other one is read.
    """
    child, failures = None, 0
    try:
        for tgid in tgids:
            mappings = None
            if failures < _MOST_FAILURES:
                # Urgent: this process waits, maybe with a higher priority that its child lacks.
                child = child or AskedChild(_read, within_s=_ANSWERS_WITHIN_S, is_urgent=True)
                mappings = child.answered(tgid)
            if mappings is not None:
                yield _held(tgid, [HeldMapping(**mapping) for mapping in mappings])
                continue
            if child is not None:
                child.close()
                child, failures = None, failures + 1
            yield _unread(tgid)
    finally:
        if child is not None:
            child.close()


def _read(tgid: int) -> Iterator[dict[str, Any]]:
    """Yield the mappings of a process, in the child."""
    anatomy = read_process(tgid, runtimes=False)
    groups = anatomy.groups if anatomy is not None else []
    rest = _anon_bytes(tgid)
    for group in groups:
        if group.kind != _UNREAD and group.anon_bytes:
            yield asdict(HeldMapping(group.kind, stored_name(group.name), group.anon_bytes))
            rest -= group.anon_bytes
    for group in groups:
        if group.kind == _UNREAD and rest > 0:
            yield asdict(HeldMapping(_UNREAD, stored_name(group.name), rest))


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
