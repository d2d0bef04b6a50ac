"""Samples of `record --stacks`: the stacks with which processes allocated, the code that made memory grow,
and its tree for a flame graph.

Each sample represents `weight_bytes` that were charged (docs/trace-format.md). It has a user stack and the
kernel stack to which it led. Frames with the same symbol are one function, at any offset.

A sample whose memory was freed by a moment is no part of what is held then. Who takes memory and gives it
back, again and again, has many samples and holds little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import Bools, Int64s, column_times_ns, integers, times_ns
from tracer.analysis.core.lookups import Frames
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.memory import CodeFrame, Grown, GrownCode, SampledMemory
from tracer.analysis.views.grown_functions import (
    StackGrowth,
    frame_of,
    grown_functions,
    heaviest,
    is_touched_by_allocator,
    of_program,
)

_NO_NAME: Final = "[unknown]"


class Charged(NamedTuple):
    """Bytes that were sampled in a process; `user` and `kernel` are the functions, outermost first."""

    comm: str
    user: Frames
    kernel: Frames
    weight_bytes: int


class SampledStack(NamedTuple):
    """Bytes that were sampled in one process with one stack: frames as they were recorded, innermost first.

    `cgroup` is the path of the cgroup that was charged, `category` anon, shmem, file, kernel or sock. None:
    not known.
    """

    cgroup: str | None
    container: str | None
    comm: str | None
    tgid: int
    category: str
    user: Frames
    kernel: Frames
    weight_bytes: int

    @property
    def telling_kernel(self) -> Frames:
        """Return the functions of the kernel, unless they only show how the page came: a page fault, a read.

        They are kept for kernel memory, and where no stack of a program could be taken.
        """
        return self.kernel if not self.user or self.category in ("kernel", "sock") else ()


def were_asked_for(trace: TraceTables) -> bool:
    """Return whether the trace was recorded with `--stacks`."""
    return (trace.meta.get("filters") or {}).get("stacks_bytes") is not None


def samples_within(
    samples: pd.DataFrame, members: Int64s | None, begin_ns: int | None = None, end_ns: int | None = None
) -> pd.DataFrame:
    """Return the samples of `code_samples` from `begin_ns` to `end_ns`, both included (ns since the epoch;
    None: no bound).

    `members`: only those that were charged to these cgroups; None: to any.
    """
    moments = times_ns(samples)
    first = 0 if begin_ns is None else np.searchsorted(moments, begin_ns)
    last = len(moments) if end_ns is None else np.searchsorted(moments, end_ns, "right")
    rows = samples.iloc[first:last]
    is_wanted = integers(rows["bytes"]) > 0
    if members is not None:
        is_wanted &= np.isin(integers(rows["cgroup_id"]), members)
    return rows[is_wanted]


def held_within(
    trace: TraceTables, members: Int64s | None, begin_ns: int | None, end_ns: int
) -> pd.DataFrame:
    """Return the samples of `samples_within` without those that were freed by `end_ns`."""
    rows, freed = samples_within(trace.code_samples, members, begin_ns, end_ns), Freed.of(trace.code_samples)
    return rows[_are_held(trace, Samples.from_rows(rows), freed, begin_ns or 0, end_ns)]


def charged(trace: TraceTables, samples: pd.DataFrame) -> list[Charged]:
    """Return rows of `code_samples` summed up by process name and functions, the heaviest first."""
    functions = trace.functions
    sums: dict[tuple[str, Frames, Frames], int] = {}
    for (comm,), user, kernel, weight in _by_stacks(trace, samples, ("comm",)):
        name = _NO_NAME if comm is None else str(comm)
        key = (name, functions.functions_for(user)[::-1], functions.functions_for(kernel)[::-1])
        sums[key] = sums.get(key, 0) + weight
    rows_of_all = [Charged(*key, weight) for key, weight in sums.items()]
    return sorted(rows_of_all, key=lambda row: (-row.weight_bytes, row))


def by_origin(trace: TraceTables, samples: pd.DataFrame) -> list[SampledStack]:
    """Return rows of `code_samples` summed up by cgroup, process, kind of memory and stack, the heaviest
    first."""
    functions = trace.functions
    found = [
        SampledStack(
            cgroup=cgroup,
            container=container,
            comm=comm,
            tgid=tgid,
            category=category,
            user=functions.frames_for(user) or (),
            kernel=functions.frames_for(kernel) or (),
            weight_bytes=weight,
        )
        for (cgroup, container, comm, tgid, category), user, kernel, weight in _by_stacks(
            trace, samples, ("cgroup", "container", "comm", "tgid", "category")
        )
    ]
    return sorted(found, key=lambda row: (-row.weight_bytes, *map(str, row)))


def _by_stacks(
    trace: TraceTables, samples: pd.DataFrame, names: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], int, int, int]]:
    """Yield (values of the named columns, None for null, user stack, kernel stack, bytes) of each combination
    that occurs; `NO_ID`: no stack."""
    named = naming.with_names(trace, samples)[list(names)]
    stacks = {name: integers(samples[name]) for name in ("stack_id", "kernel_stack_id")}
    keys = [*names, *stacks]
    grouped = named.assign(**stacks, bytes=integers(samples["bytes"])).groupby(
        keys, dropna=False, observed=True, sort=False
    )
    for key, weight in grouped["bytes"].sum().items():
        assert isinstance(key, tuple)
        *values, user, kernel = key
        yield tuple(None if pd.isna(one) else one for one in values), user, kernel, int(weight)


_WEIGHTS: Final[Mapping[str, ledger.Weights]] = {
    "anon": ledger.ANON,
    "shmem": {"shmem": 1},
    "file": ledger.CACHE,
    "kernel": {"kernel": 1, "sock": 1},
}


class Samples(NamedTuple):
    """Samples as arrays, in the order of time. `kind`: sockets count as kernel memory. `is_followed`: if one
    was freed, there is a row that says so. `again_bytes`: growth in them that earlier samples had stood for,
    which were freed with a page while that growth was held; 0 in older traces."""

    time: Int64s
    tgid: Int64s
    stack_id: Int64s
    kernel_stack_id: Int64s
    bytes: Int64s
    again_bytes: Int64s
    kind: npt.NDArray[np.object_]
    is_followed: Bools

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> Samples:
        """Return the samples of rows of `code_samples`, without the rows in which samples are freed."""
        rows = rows[integers(rows["bytes"]) > 0]
        kinds = np.array(rows["category"], dtype=object)
        kinds[kinds == "sock"] = "kernel"
        tgid, user, kernel, nr_bytes = (
            integers(rows[name]) for name in ("tgid", "stack_id", "kernel_stack_id", "bytes")
        )
        again_bytes = integers(rows["again_bytes"].fillna(0))
        is_followed = rows["is_followed"].fillna(False).to_numpy(dtype=bool)
        return cls(times_ns(rows), tgid, user, kernel, nr_bytes, again_bytes, kinds, is_followed)

    def picked(self, which: slice | npt.NDArray[np.bool_]) -> Samples:
        numbers = (self.time, self.tgid, self.stack_id, self.kernel_stack_id, self.bytes, self.again_bytes)
        time, tgid, user, kernel, nr_bytes, again_bytes = (column[which] for column in numbers)
        kind, is_followed = self.kind[which], self.is_followed[which]
        return Samples(time, tgid, user, kernel, nr_bytes, again_bytes, kind, is_followed)

    def within(self, begin_ns: int, end_ns: int) -> Samples:
        """Return the samples of an interval, both ends included."""
        first = int(np.searchsorted(self.time, begin_ns))
        return self.picked(slice(first, int(np.searchsorted(self.time, end_ns, "right"))))


class Freed(NamedTuple):
    """The rows of `code_samples` in which samples are freed, in the order of time: when, and the time of the
    sample, which no other sample of anonymous memory has."""

    time: Int64s
    sampled: Int64s

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Freed:
        rows = rows[integers(rows["bytes"]) < 0]
        return cls(times_ns(rows), column_times_ns(rows["sampled"]))


def grown_within(subtree: Subtree, kinds: Sequence[str], begin_ns: int, end_ns: int) -> Grown:
    """Return the code that made memory of some kinds grow in a cgroup and below it, and that is still held.

    The sampled share is at most the share that came while sampling was armed: memory that was freed and came
    again is sampled twice, where its freeing was not seen. By as much, shares are less certain.
    """
    trace = subtree.whole
    if not were_asked_for(trace):
        return Grown(why_unknown="no samples of code were asked for (--stacks)")
    samples = subtree.once("grown_code", lambda: Samples.from_rows(subtree.code_samples))
    freed = subtree.once("grown_code.freed", lambda: Freed.of(subtree.code_samples))
    samples = samples.within(begin_ns, end_ns)
    samples = samples.picked(np.isin(samples.kind, list(kinds)))
    held = samples.picked(_are_held(trace, samples, freed, begin_ns, end_ns))
    grown = [_grown(subtree, kind, begin_ns, end_ns) for kind in kinds]
    armed = [
        min(_grown_while_armed(subtree, kind, begin_ns, end_ns), most)
        for kind, most in zip(kinds, grown, strict=True)
    ]
    memory = SampledMemory(
        held_bytes=int(held.bytes.sum()),
        freed_bytes=max(int((samples.bytes - samples.again_bytes).sum() - held.bytes.sum()), 0),
        unseen_freed_bytes=_unseen(trace, held, dict(zip(kinds, armed, strict=True))),
        span_s=(end_ns - begin_ns) / 1e9,
        allocator_bytes=_by_allocator(trace, held),
    )
    code = tuple(
        replace(one, share_error=min(one.share_error + memory.unseen_share, 1.0))
        for one in grown_code(trace, held, kinds)
    )
    if not sum(grown):
        return Grown(code, None, memory, "no memory of the kind of the verdict grew")
    return Grown(code, min(memory.held_bytes, sum(armed)) / sum(grown), memory)


def _unseen(trace: TraceTables, held: Samples, grown: Mapping[str, int]) -> int:
    """Return by how much the samples that nobody followed exceed the growth of their kind, by more than a
    sample on each CPU: as much was freed again.

    Those that were followed may exceed it: what was freed instead of them is older. Page cache that is
    evicted does not count: who reads it is the answer, however little of it stays.
    """
    inexact_bytes = trace.meta["filters"]["stacks_bytes"] * trace.meta["cpus"]
    beyond = 0
    for kind in grown.keys() - {"file"}:
        is_kind = held.kind == kind
        most = int(held.bytes[is_kind & ~held.is_followed].sum())
        excess = int(held.bytes[is_kind].sum()) - grown[kind]
        beyond += min(excess, most) if excess > inexact_bytes else 0
    return beyond


def _are_held(trace: TraceTables, samples: Samples, freed: Freed, begin_ns: int, end_ns: int) -> Bools:
    """Return a mask of the samples whose memory is not freed by `end_ns`. Anonymous memory is freed as well
    when its process ends."""
    last = int(np.searchsorted(freed.time, end_ns, "right"))
    is_freed = np.isin(samples.time, freed.sampled[:last])
    is_anon = samples.kind == "anon"
    for tgid in np.unique(samples.tgid[is_anon]).tolist():
        if trace.processes.exited_at(tgid, begin_ns, end_ns) is not None:
            is_freed |= is_anon & (samples.tgid == tgid)
    return ~is_freed


def _grown(subtree: Subtree, kind: str, begin_ns: int, end_ns: int) -> int:
    """Return how much memory of a kind grew. Page cache that was evicted again came as well, and was sampled
    when it came."""
    steps = ledger.change(subtree, _WEIGHTS[kind])
    evicted = subtree.evicted.pages_between(begin_ns, end_ns) if kind == "file" else 0
    change = (steps.at(end_ns) or 0) - (steps.at(begin_ns) or 0)
    return max(change + evicted * page_size(subtree.whole), 0)


def _grown_while_armed(subtree: Subtree, kind: str, begin_ns: int, end_ns: int) -> int:
    """Return the growth within the intervals of `armed`."""
    begins, ends = subtree.once(("grown_code.armed", kind), lambda: _armed(subtree.whole, kind))
    near = slice(np.searchsorted(ends, begin_ns), np.searchsorted(begins, end_ns, "right"))
    spans = np.column_stack([np.maximum(begins[near], begin_ns), np.minimum(ends[near], end_ns)])
    return sum(_grown(subtree, kind, begin, end) for begin, end in spans.tolist() if begin < end)


def _armed(trace: TraceTables, kind: str) -> tuple[Int64s, Int64s]:
    """Return the begins and ends of the intervals of `armed`; rows that touch are one interval."""
    armed = trace.armed[np.array(trace.armed["kind"], dtype=object) == kind]
    begins, ends = column_times_ns(armed["begin"]), times_ns(armed)
    firsts = np.flatnonzero(np.append(True, begins[1:] > ends[:-1])[: len(begins)])
    lasts = np.append(firsts[1:], len(begins))[: len(firsts)] - 1
    return begins[firsts], ends[lasts]


def grown_code(trace: TraceTables, samples: Samples, kinds: Sequence[str]) -> tuple[GrownCode, ...]:
    """Return the code that made memory of some kinds grow, the largest share first.

    `kinds`: anon, shmem, file, kernel (with sockets). Shares are of the growth of these kinds that was
    sampled.
    """
    return grown_functions({kind: _sampled(trace, samples.picked(samples.kind == kind)) for kind in kinds})


def _sampled(trace: TraceTables, samples: Samples) -> list[StackGrowth]:
    """Return the samples by process and stack."""
    if not len(samples.time):
        return []
    positions = trace.processes.positions_at(samples.tgid, samples.time)
    names = [None if pd.isna(comm) else str(comm) for comm in trace.processes.comms(positions).tolist()]
    keys = np.column_stack([samples.tgid, samples.stack_id, samples.kernel_stack_id])
    unique, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    weights = _sums(which.ravel(), samples.bytes, len(unique))
    squares = np.bincount(which.ravel(), samples.bytes.astype(float) ** 2, len(unique))
    return [
        StackGrowth(names[at], tgid, _frames(trace, user), _frames(trace, kernel), weight, square)
        for (tgid, user, kernel), at, weight, square in zip(
            unique.tolist(), first.tolist(), weights.tolist(), squares.tolist(), strict=True
        )
    ]


def _by_allocator(trace: TraceTables, samples: Samples) -> int:
    """Return the bytes of samples that were touched by malloc() itself."""
    stacks, which = np.unique(samples.stack_id, return_inverse=True)
    is_inside = [is_touched_by_allocator(_frames(trace, stack)) for stack in stacks.tolist()]
    return int(samples.bytes[np.array(is_inside, bool)[which.ravel()]].sum())


def _sums(which: npt.NDArray[np.intp], values: Int64s, groups: int) -> Int64s:
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, which, values)
    return sums


def _frames(trace: TraceTables, stack_id: int) -> tuple[str, ...]:
    return trace.functions.frames_for(stack_id) or ()


MOST_DEPTH: Final = 60
_LEAST_SHARE: Final = 0.002
"""A smaller part of a graph is thinner than two pixels of a wide screen."""

PROCESS: Final = "process"
PROGRAM: Final = "program"
LIBRARY: Final = "library"
KERNEL: Final = "kernel"
"""What a frame is: a process name; a function of the program itself, or of a library, an allocator or an
interpreter; a function of the kernel."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A frame and the bytes of all samples below it; `below` has the larger ones first. Bytes of samples that
    end here, or continue in small frames, are in no frame below."""

    frame: CodeFrame
    what: str
    bytes: int
    below: tuple[Growth, ...]


class _Step(NamedTuple):
    what: str
    frame: CodeFrame


@dataclass(slots=True)
class _Node:
    """`lines` has the bytes of each frame that counts as this one: those of one function at several lines."""

    what: str
    bytes: int = 0
    lines: Counter[CodeFrame] = field(default_factory=Counter)
    below: dict[tuple[str, str, str | None], _Node] = field(default_factory=dict)


def growth_tree(stacks: Iterable[SampledStack]) -> tuple[Growth, ...]:
    """Return the frames of process names, with those of their stacks below, the outermost function first.

    The kernel's frames are those of `SampledStack.telling_kernel`. A stack is cut after `MOST_DEPTH` frames,
    and frames with less than 1/500 of all bytes are left out.
    """
    root = _Node(PROCESS)
    for stack in stacks:
        root.bytes += stack.weight_bytes
        node = root
        for step in _steps(stack):
            key = (step.what, *step.frame.identity)
            node = node.below.setdefault(key, _Node(step.what))
            node.bytes += stack.weight_bytes
            node.lines[step.frame] += stack.weight_bytes
    return _frozen(root, max(int(_LEAST_SHARE * root.bytes), 1))


def _steps(stack: SampledStack) -> Iterator[_Step]:
    yield _Step(PROCESS, CodeFrame(stack.comm or "name not known", None, None, None))
    own = len(of_program(stack.user))
    whose = [LIBRARY] * (len(stack.user) - own) + [PROGRAM] * own
    steps = [_Step(KERNEL, frame_of(name)) for name in stack.telling_kernel]
    steps += [_Step(what, _merged(frame_of(name))) for name, what in zip(stack.user, whose, strict=True)]
    yield from steps[: -MOST_DEPTH - 1 : -1]


def _merged(frame: CodeFrame) -> CodeFrame:
    """Return one frame for all functions of a module without names."""
    unnamed = frame.module is not None and frame.function.startswith("[")
    return CodeFrame(f"[{frame.module}]", None, None, frame.module) if unnamed else frame


def _frozen(node: _Node, least_bytes: int) -> tuple[Growth, ...]:
    large = (one for one in node.below.values() if one.bytes >= least_bytes)
    below = sorted(large, key=lambda one: -one.bytes)
    return tuple(Growth(heaviest(one.lines), one.what, one.bytes, _frozen(one, least_bytes)) for one in below)
