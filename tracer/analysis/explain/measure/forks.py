"""The fork at a kill: a process and a child that lives from its parent's pages.

A fork copies no memory. Parent and child share every anonymous page until one of them writes to it, which
copies the page (do_wp_page in mm/memory.c). So such a pair grows without allocating anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import Findings, Fork
from tracer.analysis.results.tasks import Candidate

_END_NS: Final = 1_000_000_000


def at_kill(subtree: Subtree, candidates: Sequence[Candidate], time_ns: int) -> Fork | None:
    """Return the fork whose child had most memory of its parent at the kill; None if none is known.

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
    return max(forks, key=lambda fork: fork.inherited_bytes, default=None)


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


def shared_bytes(findings: Findings) -> int | None:
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
) -> Iterator[Fork]:
    """Yield the fork of a pair, if the child has memory that it was not charged for."""
    held, of_parent = child.anon_rss_bytes, parent.anon_rss_bytes
    if held is None or of_parent is None or _is_one_space(parent, child):
        return
    charged = [_anon_charged(subtree, pid, since_ns, time_ns) for pid in (parent.pid, child.pid)]
    inherited = held - max(charged[1], 0)
    if inherited <= 0:
        return
    shared_at_fork = min(held, of_parent)
    if ledger.base_bytes(subtree, ledger.ANON) == 0:  # all that the parent holds was charged in the trace
        before = _anon_charged(subtree, parent.pid, subtree.start_ns, since_ns)
        shared_at_fork = min(shared_at_fork, max(before, 0))
    new = held + of_parent - 2 * shared_at_fork
    yield Fork(
        parent_pid=parent.pid,
        parent_comm=parent.comm,
        child_pid=child.pid,
        child_comm=child.comm,
        inherited_bytes=inherited,
        copied_bytes=max(sum(charged) - new, 0),
        new_bytes=max(new, 0),
        age_ns=time_ns - since_ns,
    )


def _anon_charged(subtree: Subtree, tgid: int, begin_ns: int, end_ns: int) -> int:
    """Return the anonymous memory that a process was charged in an interval, net, in bytes."""
    charges = subtree.charges
    rows = subtree.once("forks.anon", lambda: np.flatnonzero(charges.is_of("anon")))
    first, last = np.searchsorted(charges.time[rows], [begin_ns, end_ns + 1])
    rows = rows[first:last]
    return int(charges.bytes[rows][charges.tgid[rows] == tgid].sum(dtype=np.int64))
