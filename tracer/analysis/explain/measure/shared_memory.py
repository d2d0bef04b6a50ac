"""The memory that several processes share at a kill: the files of shared memory, and the pages of a fork.

A fork copies no memory. Parent and child share every anonymous page until one of them writes to it, which
copies the page (do_wp_page in mm/memory.c). So such a pair grows without allocating anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, ColumnArrays, Int64s, integers, times_ns
from tracer.analysis.core.ledger import Weights
from tracer.analysis.core.rows import RowsByThing
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import EndedWriter, Findings, Fork
from tracer.analysis.results.kill import Candidate
from tracer.analysis.results.memory import SharedFile

_SHMEM: Final[Weights] = {"shmem": 1}
_MUCH_SHARE: Final = 0.2
_KNOWN_PERCENT: Final = 90
_LITTLE_DIVISOR: Final = 10
_MOST_NAMED: Final = 3
_LATE_NS: Final = 100_000_000
"""The look at a kill is some milliseconds after it."""


def files_at(subtree: Subtree, time_ns: int, shmem_bytes: int | None) -> tuple[SharedFile, ...]:
    """Return the files that held the shared memory of the cgroups at a moment, the largest first.

    They are those of the last look at each. A file is left out if so much shared memory was freed since that
    it may be gone. Together they hold at most `shmem_bytes`, the shared memory at that moment. A file that
    holds nothing is listed if a process that is still there has it mapped.
    """
    if not len(subtree.rows("shmem_files").positions):
        return ()
    looks = subtree.once("shared_memory.looks", lambda: _Looks.from_table(subtree.shmem_files))
    left = shmem_bytes or 0
    level, found, before_growth = ledger.change(subtree, _SHMEM), [], []
    for row in looks.last_at(time_ns + _LATE_NS):
        held, is_mapped = int(row["held_bytes"]), bool(row["is_mapped"])
        if held:
            is_there = left > 0 and not _was_freed(subtree, int(row["time"]), time_ns, held)
        else:
            is_there = is_mapped and _is_alive(subtree, int(row["tgid"]), time_ns)
        if not is_there:
            continue
        held = min(held, left)
        left -= held
        since = (level.at(time_ns) or 0) - (level.at(min(int(row["time"]), time_ns)) or 0)
        before_growth.append(since > held // _LITTLE_DIVISOR)
        found.append(
            SharedFile(
                kind=str(row["kind"]),
                name=str(row["name"]),
                held_bytes=held,
                size_bytes=int(row["size_bytes"]),
                is_mapped=is_mapped,
            )
        )
    if left > (shmem_bytes or 0) // _LITTLE_DIVISOR:
        found = [replace(one, is_least=grew) for one, grew in zip(found, before_growth, strict=True)]
    return tuple(sorted(found, key=lambda one: -one.held_bytes))


@dataclass(frozen=True, slots=True)
class _Looks:
    """The rows of `shmem_files` with their times in ns, by file."""

    columns: ColumnArrays
    by_file: RowsByThing

    @classmethod
    def from_table(cls, looks: pd.DataFrame) -> _Looks:
        times = times_ns(looks)
        files = integers(looks.groupby(["dev", "ino"], dropna=False).ngroup())
        of_file = RowsByThing.from_rows(times, files, int(files.max(initial=-1)) + 1)
        return cls(ColumnArrays.from_frame(looks.assign(time=times)), of_file)

    def last_at(self, time_ns: int) -> list[dict[str, Any]]:
        """Return the last look at each file up to a moment, included, the latest first."""
        last = self.by_file.last_rows_at(time_ns)
        last = np.sort(last[last >= 0])[::-1]
        return self.columns.records(last) if len(last) else []


def _was_freed(subtree: Subtree, seen_ns: int, time_ns: int, held_bytes: int) -> bool:
    """Return whether more than half of so much shared memory was freed between two moments."""
    level = ledger.change(subtree, _SHMEM)
    least = level.within(seen_ns, time_ns).least()
    return least is not None and least < (level.at(seen_ns) or 0) - held_bytes // 2


def _is_alive(subtree: Subtree, tgid: int, time_ns: int) -> bool:
    return subtree.whole.processes.exited_at(tgid, subtree.start_ns, time_ns) is None


def ended_writer(subtree: Subtree, time_ns: int) -> EndedWriter | None:
    """Return the process that had ended by a moment and was charged for most of the shared memory that its
    end did not free; None if there is none."""
    left = {
        tgid: bytes_ for tgid, bytes_ in _charged(subtree, time_ns) if not _is_alive(subtree, tgid, time_ns)
    }
    if not left:
        return None
    tgid = max(left, key=lambda one: left[one])
    exited_ns = subtree.whole.processes.exited_at(tgid, subtree.start_ns, time_ns) or time_ns
    return EndedWriter(
        pid=tgid,
        comm=subtree.whole.processes.comm_at(tgid, subtree.start_ns, time_ns),
        shmem_bytes=left[tgid],
        ended_ns=time_ns - exited_ns,
    )


def _charged(subtree: Subtree, time_ns: int) -> Iterator[tuple[int, int]]:
    """Yield each process with the shared memory that it was charged since the trace began, if more than was
    freed."""
    charges = subtree.charges
    rows = subtree.once(
        "shared_memory.rows",
        lambda: np.flatnonzero(charges.is_of("shmem") & (charges.tgid != NO_ID)),
    )
    rows = rows[: int(np.searchsorted(charges.time[rows], time_ns, "right"))]
    number, tgids = pd.factorize(charges.tgid[rows])
    summed = np.bincount(number, charges.bytes[rows], len(tgids)).astype(np.int64)
    yield from ((int(tgid), int(bytes_)) for tgid, bytes_ in zip(tgids, summed, strict=True) if bytes_ > 0)


def is_much(findings: Findings) -> bool:
    """Return whether shared memory is a good part of usage."""
    made_of = findings.composition
    return (made_of.shmem or 0) > _MUCH_SHARE * (made_of.total or 0)


def largest(findings: Findings) -> tuple[SharedFile, ...]:
    """Return the files with at least a tenth of the shared memory, the largest first, at most three."""
    least = (findings.composition.shmem or 0) // 10
    return tuple(one for one in findings.shared_files if one.held_bytes > least)[:_MOST_NAMED]


@dataclass(frozen=True, slots=True)
class OfKind:
    """The files of one kind, as `SharedFile.kind` has it, and the shared memory in all of them.

    `is_least`: they may have held more.
    """

    kind: str
    files: tuple[SharedFile, ...]
    held_bytes: int
    is_least: bool

    @property
    def is_one_file(self) -> bool:
        """Return whether the first, largest file holds most of it."""
        return 2 * self.files[0].held_bytes > self.held_bytes


def kinds(findings: Findings) -> list[OfKind]:
    """Return the kinds with at least a tenth of the shared memory, the one with most of it first."""
    of_kind: dict[str, list[SharedFile]] = {}
    for one in findings.shared_files:
        of_kind.setdefault(one.kind, []).append(one)
    found = [
        OfKind(
            kind,
            tuple(files),
            sum(one.held_bytes for one in files),
            any(one.is_least for one in files),
        )
        for kind, files in of_kind.items()
    ]
    least = (findings.composition.shmem or 0) // 10
    return sorted((one for one in found if one.held_bytes > least), key=lambda one: -one.held_bytes)


def mapped_bytes(findings: Findings) -> int:
    """Return the shared memory in files that a process was seen to have mapped, in bytes."""
    return sum(one.held_bytes for one in findings.shared_files if one.is_mapped)


def unmapped_memfd_bytes(findings: Findings) -> int:
    """Return the shared memory in memfds that no process was seen to have mapped, in bytes."""
    files = findings.shared_files
    return sum(one.held_bytes for one in files if one.kind == "memfd" and not one.is_mapped)


def left_behind_bytes(findings: Findings) -> int:
    """Return the shared memory that the process of `Circumstances.ended_writer` left behind, in bytes.

    Memory in files that are mapped is left out: it is in use, whoever was charged for it first.
    """
    writer, shmem = findings.circumstances.ended_writer, findings.composition.shmem
    if writer is None or shmem is None:
        return 0
    return max(min(writer.shmem_bytes, shmem - mapped_bytes(findings)), 0)


def unmapped_bytes(findings: Findings) -> int | None:
    """Return the shared memory that no process had mapped, in bytes; None if it is not known.

    A process that maps a segment has only the pages in its RSS that it touched. So the sum of all RSS counts,
    or the files that were seen mapped, whichever is more.
    """
    shmem = findings.composition.shmem
    killed = [victim.shmem_rss_bytes for victim in findings.victims]
    if shmem is None or None in killed:
        return None
    weighed = sum(one.shmem_rss_bytes or 0 for one in findings.candidates)
    return max(shmem - max(sum(one or 0 for one in killed), weighed, mapped_bytes(findings)), 0)


def left_to_grow_bytes(findings: Findings) -> int | None:
    """Return by how much the shared memory can still grow in the files that hold it, in bytes.

    None if some of it is in files that are not known, or that a process may make longer: only a mapping has
    an end.
    """
    files = findings.shared_files
    known = sum(one.held_bytes for one in files if one.is_mapped)
    if known < (findings.composition.shmem or 0) * _KNOWN_PERCENT // 100:
        return None
    return sum(max(one.size_bytes - one.held_bytes, 0) for one in files if one.is_mapped)


def full_bytes(findings: Findings) -> int:
    """Return the shared memory in mapped files without a page left to touch, in bytes.

    If it is much of what grew, the processes fill one file after the other, and the next one has no size yet.
    """
    return sum(
        one.held_bytes for one in findings.shared_files if one.is_mapped and one.held_bytes >= one.size_bytes
    )


_END_NS: Final = 1_000_000_000


def fork_at_kill(subtree: Subtree, candidates: Sequence[Candidate], time_ns: int) -> Fork | None:
    """Return the fork whose child had most memory of its parent at the kill, with the copies of the parent's
    other children; None if none is known.

    `candidates` are the tasks that the kernel weighed. A child that has run another program since has none.
    """
    by_pid = {one.pid: one for one in candidates}
    forks = [
        fork
        for child in candidates
        for parent_pid, since_ns in _fork_of(subtree, child, time_ns)
        if (parent := by_pid.get(parent_pid)) is not None
        for fork in _shared(subtree, parent, child, since_ns, time_ns)
    ]
    if not forks:
        return None
    first = max(forks, key=lambda one: one.fork.inherited_bytes)
    others = [one for one in forks if one.fork.parent_pid == first.fork.parent_pid and one is not first]
    return replace(
        first.fork,
        copied_bytes=first.fork.copied_bytes + sum(one.child_copied_bytes for one in others),
        new_bytes=first.fork.new_bytes + sum(one.child_new_bytes for one in others),
        children=1 + len(others),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A fork, and the part of the copies and of the new memory that is its child's."""

    fork: Fork
    child_copied_bytes: int
    child_new_bytes: int


def sharers(
    subtree: Subtree, candidates: Sequence[Candidate], killed: frozenset[int], time_ns: int
) -> frozenset[int]:
    """Return the processes that run in the address space of a killed one: children of vfork.

    The kernel kills them with it (__oom_kill_process in mm/oom_kill.c), without marking them as victims. So
    they end at once, and all their sizes are those of the killed process.
    """
    victims = [one for one in candidates if one.pid in killed]
    return frozenset(
        one.pid
        for one in candidates
        if one.pid not in killed and any(_is_one_space(one, victim) for victim in victims)
        if subtree.whole.processes.exited_at(one.pid, time_ns, time_ns + _END_NS) is not None
    )


def _is_one_space(one: Candidate, other: Candidate) -> bool:
    """Return whether two processes have the same sizes, as a parent and its child of vfork have.

    After a fork, the child has none of the pages of files that its parent has mapped.
    """
    sizes = [(each.anon_rss_bytes, each.rss_bytes) for each in (one, other)]
    return one.anon_rss_bytes is not None and sizes[0] == sizes[1]


def shared_by_fork_bytes(findings: Findings) -> int | None:
    """Return by how much the anonymous RSS of all processes exceeds the anonymous memory in use, in bytes.

    So much more memory is in use once each process has written to all of its pages. None: not known.
    """
    again = findings.victim_tgids - {victim.pid for victim in findings.victims}  # `sharers`
    held = [one.anon_rss_bytes for one in findings.candidates if one.pid not in again]
    anon = findings.composition.anon
    if anon is None or not held or None in held:
        return None
    return max(sum(one or 0 for one in held) - anon - (findings.composition.unevictable or 0), 0)


def _fork_of(subtree: Subtree, child: Candidate, time_ns: int) -> Iterator[tuple[int, int]]:
    fork = subtree.whole.processes.fork_of(child.pid, time_ns)
    if fork is not None:
        yield fork


def _shared(
    subtree: Subtree, parent: Candidate, child: Candidate, since_ns: int, time_ns: int
) -> Iterator[_Pair]:
    """Yield the fork of a pair, if the child has memory that it was not charged for."""
    held, of_parent = child.anon_rss_bytes, parent.anon_rss_bytes
    if held is None or of_parent is None or _is_one_space(parent, child):
        return
    sent_ns = _last_sum_ns(subtree, parent.pid, since_ns)
    begun = {parent.pid: sent_ns + 1, child.pid: since_ns}
    charged = [_anon_charged(subtree, pid, begin_ns, time_ns) for pid, begin_ns in begun.items()]
    inherited = held - max(charged[1], 0)
    if inherited <= 0:
        return
    shared_at_fork = min(held, of_parent)
    if ledger.base_bytes(subtree, ledger.ANON) == 0:  # all that the parent holds was charged in the trace
        before = _anon_charged(subtree, parent.pid, subtree.start_ns, sent_ns)
        shared_at_fork = min(shared_at_fork, max(before, 0))
    new, of_child = held + of_parent - 2 * shared_at_fork, max(held - shared_at_fork, 0)
    fork = Fork(
        parent_pid=parent.pid,
        parent_comm=parent.comm,
        child_pid=child.pid,
        child_comm=child.comm,
        inherited_bytes=inherited,
        copied_bytes=max(sum(charged) - new, 0),
        new_bytes=max(new, 0),
        age_ns=time_ns - since_ns,
    )
    yield _Pair(fork, max(charged[1] - of_child, 0), of_child)


def _last_sum_ns(subtree: Subtree, parent_tgid: int, fork_ns: int) -> int:
    """Return when the last sum was sent that has anonymous memory of a parent from before its fork."""
    rows = _anon_rows(subtree, parent_tgid, fork_ns, fork_ns + ledger.SUMMED_NS)
    return int(subtree.charges.time[rows[0]]) if len(rows) else fork_ns


def _anon_charged(subtree: Subtree, tgid: int, begin_ns: int, end_ns: int) -> int:
    """Return the anonymous memory that a process was charged in an interval, net, in bytes."""
    return int(subtree.charges.bytes[_anon_rows(subtree, tgid, begin_ns, end_ns)].sum(dtype=np.int64))


def _anon_rows(subtree: Subtree, tgid: int, begin_ns: int, end_ns: int) -> Int64s:
    charges = subtree.charges
    rows = subtree.once("forks.anon", lambda: np.flatnonzero(charges.is_of("anon")))
    first, last = np.searchsorted(charges.time[rows], [begin_ns, end_ns + 1])
    rows = rows[first:last]
    found: Int64s = rows[charges.tgid[rows] == tgid]
    return found
