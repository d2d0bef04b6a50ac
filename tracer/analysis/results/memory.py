"""The memory of a cgroup: composition, the page cache as a cushion, allocators, and attempts of reclaim."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tracer.program_modules import INTERPRETERS
from tracer.stored_names import NAMELESS_PYTHON

if TYPE_CHECKING:
    import pandas as pd

NAMELESS_CODE: Final = "[code]"
"""The function of a `CodeFrame` that stands for addresses without a name or a module."""
NAMELESS_SCRIPTS: Final = {f"[{name}]": name for name in INTERPRETERS if f"[{name}]" != NAMELESS_PYTHON}
"""The function of a `CodeFrame` that stands for those of a script -> its interpreter, of which no names are
read."""
_NAMELESS: Final = {
    NAMELESS_PYTHON: "a Python function whose name could not be read",
    NAMELESS_CODE: "code that could not be named",
} | {function: f"a function of {runs} whose name is not known" for function, runs in NAMELESS_SCRIPTS.items()}


@dataclass(frozen=True, slots=True)
class Composition:
    """The classes of memory that made up usage at the kill, in bytes. They are disjoint.

    `analysis.explain.measure.composition` defines them.

    The known classes and `other` add up to `total` exactly, and `total` is the page counter's usage.
    """

    anon: int | None = None
    file_clean: int | None = None
    file_dirty: int | None = None
    writeback: int | None = None
    shmem: int | None = None
    unevictable: int | None = None
    slab_reclaimable: int | None = None
    slab_unreclaimable: int | None = None
    kernel_stack: int | None = None
    page_tables: int | None = None
    sock: int | None = None
    percpu: int | None = None
    vmalloc: int | None = None
    zswap: int | None = None
    hugetlb: int | None = None
    other: int | None = None
    total: int | None = None

    def parts(self) -> Iterator[tuple[str, int | None]]:
        """Yield (class, bytes) of every class, `other` last, without `total`."""
        for part in COMPOSITION_PARTS:
            yield part, getattr(self, part)


COMPOSITION_PARTS: Final = tuple(item.name for item in fields(Composition) if item.name != "total")


@dataclass(frozen=True, slots=True)
class Cushion:
    """The page cache as the cushion between the limit and the kill.

    `analysis.explain.measure.window` has the definitions.
    """

    cache_start_bytes: int | None = None
    cache_end_bytes: int | None = None
    evicted_bytes: int | None = None
    absorbed_bytes: int | None = None
    limit_reached_at: pd.Timestamp | None = None
    exhausted_at: pd.Timestamp | None = None
    refaulted_bytes: int | None = None
    kernel_refaulted_bytes: int | None = None
    evicted_after_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of shared memory, as last seen before the kill (docs/trace-format.md, `shmem_files`).

    `kind`: anonymous, sysv, memfd or tmpfs. `held_bytes`: its pages, at most the cgroup's shared memory.
    `is_mapped`: a process had it mapped. `is_least`: it may have held more at the kill, since shared memory
    grew after it was seen that is in no other known file.
    """

    kind: str
    name: str
    held_bytes: int
    size_bytes: int
    is_mapped: bool
    is_least: bool = False


@dataclass(frozen=True, slots=True)
class CachedFile:
    """The page cache of a file (docs/trace-format.md, `contents`).

    `path`: None if it is not known. `kind`: file or shmem. `active_bytes`: the part on the active list; None
    if the kernel has generations in place of lists.
    """

    path: str | None
    kind: str
    bytes: int
    dirty_bytes: int
    active_bytes: int | None


@dataclass(frozen=True, slots=True)
class CacheContents:
    """The page cache of a cgroup and those below it, shmem included, at one look; the largest file comes
    first. `further_files` have `further_bytes` together. The look began at `time` and took `duration_ns`:
    what came or went meanwhile may have been counted or not."""

    time: pd.Timestamp
    bytes: int
    files: tuple[CachedFile, ...]
    further_files: int
    further_bytes: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class MappedPart:
    """The mappings of a process of one kind and name (docs/trace-format.md, `mappings`). `rss_bytes` has each
    page of a heap in a file that is in memory only once."""

    kind: str
    name: str
    count: int
    rss_bytes: int
    pss_bytes: int | None
    anon_bytes: int
    swap_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The memory of a process when it was looked at, by mapping; the largest part comes first.

    `comm`: None if it is not known. `shared_bytes`: the part of its private memory that it shared with other
    processes, since a fork.
    """

    pid: int
    comm: str | None
    time: pd.Timestamp
    rss_bytes: int
    shared_bytes: int
    parts: tuple[MappedPart, ...]

    def anon_bytes(self, kind: str | None = None) -> int:
        """Return its anonymous memory in bytes, of one kind of mapping or of all."""
        return sum(part.anon_bytes for part in self.parts if kind in (None, part.kind))

    def count(self, kind: str) -> int:
        """Return the number of mappings of a kind, or of the things that it counts."""
        return sum(part.count for part in self.parts if part.kind == kind)

    @property
    def threads(self) -> int:
        """Return the number of stacks of threads, without the first one."""
        return sum(part.count for part in self.parts if part.kind == "stack" and not part.name)


@dataclass(frozen=True, slots=True)
class CodeFrame:
    """A function of a stack. `file` and `line` are known for Python and Node, and for native code where the
    file that has it says so (DWARF): `module`."""

    function: str
    file: str | None
    line: int | None
    module: str | None

    @property
    def identity(self) -> tuple[str, str | None]:
        """Return what the frames of one function have in common, whatever line runs."""
        return self.function, self.module or self.file

    @property
    def is_scripted(self) -> bool:
        """Return whether it is a function of Python or Node."""
        return self.line is not None and self.module is None

    @property
    def is_nameless(self) -> bool:
        """Return whether it does not say which function ran."""
        return self.function in _NAMELESS

    def __str__(self) -> str:
        """Return the function with its place: a line of a file, or else the module."""
        if self.function in _NAMELESS:
            return _NAMELESS[self.function]
        place = self.module
        if self.file is not None:
            place = self.file if self.line is None else f"{self.file}:{self.line}"
        has_place = place is not None and not self.function.startswith("[")
        return f"{self.function} ({place})" if has_place else self.function


def in_function(frames: Sequence[CodeFrame]) -> str:
    """Return the innermost function of a stack and its caller."""
    inner, *callers = frames or (CodeFrame("no stack could be taken", None, None, None),)
    return f"{inner}, called by {callers[0]}" if callers else str(inner)


@dataclass(frozen=True, slots=True)
class HeapSite:
    """Live memory of a heap that one stack allocated, by the runtime's own profile: `bytes`, which are the
    `share` of all that the profile estimates. `frames`: innermost first."""

    share: float
    bytes: int
    frames: tuple[CodeFrame, ...]


Runtime: TypeAlias = Mapping[str, Any]
"""What the runtime of a process shows of its memory: `pid`, `kind`, and numbers with units in the names
(docs/trace-format.md, `runtimes`).

`jvm`: `heap_used_bytes`, `heap_committed_bytes`, `heap_max_bytes`, `metaspace_used_bytes`,
`metaspace_committed_bytes`, `collections`; `option`, which set the largest heap (null: none is known);
`outside_bytes`, the anonymous memory outside of the heap. `go`: the numbers of its runtime, `outside_bytes`,
and `profile`, a tuple of HeapSite; `memory_limit_bytes` is None if none is set; `unread`: the reason if it
has no numbers. `node`: `heap_bytes`, V8's heap, and `outside_bytes`; `option` and `old_space_max_bytes`,
which it sets (null: it is not set, or, unless `all_options_known`, not known); `young_max_bytes`, if an
option sets the young generation; `names_functions`: whether it writes a perf map. `postgresql`: `title`;
`own_bytes`, its anonymous memory; `touched_shared_bytes`. `glibc`: `arenas`, the heaps of malloc's arenas for
threads; `arena_bytes`, what is present of them; the numbers of malloc, and `free_present_bytes`: whole free
pages in its heaps that are present; `unused_present_bytes`: all that is present of its heaps and not handed
out.
"""


@dataclass(frozen=True, slots=True)
class MissPoint:
    """A point of the miss curve (`analysis.views.miss_curve`).

    With `extra_bytes` more memory, `spared_bytes` of the page cache that was evicted and read again would
    have stayed: `spared_share` of it, from 0 to 1.
    """

    extra_bytes: int
    spared_bytes: int
    spared_share: float


_TRAILING_NUMBER: Final = re.compile(r"[-_/:.#]?(?:[0-9]+|\*)$")


def name_without_number(comm: str) -> str:
    """Return the part that the names of workers have in common: `worker` for worker-0, worker-1 and
    worker-*."""
    return _TRAILING_NUMBER.sub("", comm) or comm


def shared_name(comms: Iterable[str]) -> str:
    """Return the name of processes whose names differ by a trailing number at most: `worker-*` if they do."""
    names = set(comms)
    return max(names) if len(names) == 1 else min((it.rstrip("0123456789") for it in names), key=len) + "*"


@dataclass(frozen=True, slots=True)
class GrownProcess:
    """The process whose code grew; `pid` is None for several (`processes`) of one name."""

    pid: int | None
    comm: str | None
    processes: int


@dataclass(frozen=True, slots=True)
class Caller:
    """A function that called code which made memory grow: by the `share` of all growth, as in `GrownCode`."""

    share: float
    frame: CodeFrame


@dataclass(frozen=True, slots=True)
class GrownCode:
    """Code that made memory grow, by `bytes`, which are the `share` of all growth that was sampled and is
    still held.

    `share_error`: the true share lies within this of `share` in 95 of 100 cases, since samples are few.

    `of` is the kind of memory: anon, shmem, file, slab, or kernel for other kernel memory and sockets.
    `language`: native, go, python, java, node, dotnet, pypy, perl, php, ruby, or kernel where no stack of a
    program could be taken.
    `frames` begin with the innermost function that belongs to the program, and are those that nearly all
    samples have in common. If those are one function with several callers, `callers` has them, the largest
    share first.
    `mapping`: what was mapped where the memory grew; None: not known, for the hooks of counters
    (bpf/growth.bpf.c) have no address.
    """

    share: float
    share_error: float
    bytes: int
    of: str
    process: GrownProcess
    language: str
    mapping: str | None
    frames: tuple[CodeFrame, ...]
    callers: tuple[Caller, ...] = ()


@dataclass(frozen=True, slots=True)
class SampledMemory:
    """What samples of growth stand for: `held_bytes` of them were not seen to be freed, `freed_bytes` were,
    and do not count as growth. `unseen_freed_bytes`: the part of `held_bytes` that was freed as well, by the
    ledger; it is not known which. `span_s`: the time in which the samples were taken; None: not known.
    `allocator_bytes`: the part of `held_bytes` in pages that malloc touched before its caller could. It does
    so for small pieces, and hands out the rest of such a page later, to any code."""

    held_bytes: int
    freed_bytes: int
    unseen_freed_bytes: int
    span_s: float | None = None
    allocator_bytes: int = 0

    @property
    def unseen_share(self) -> float:
        """Return the part of what seems to be held that was freed."""
        return self.unseen_freed_bytes / self.held_bytes if self.held_bytes else 0.0


class Grown(NamedTuple):
    """The code that made some kinds of memory grow and still holds it, the largest share first, the part of
    the growth that was sampled, and what the samples stand for. `sampled_share` and `memory` are None if they
    are not known, for the reason `why_unknown`."""

    code: tuple[GrownCode, ...] = ()
    sampled_share: float | None = None
    memory: SampledMemory | None = None
    why_unknown: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of a report (`SeenMemory`)."""
        return {"code": self.code, "code_sampled_share": self.sampled_share, "code_memory": self.memory}

    def unknown(self) -> dict[str, str]:
        """Return the reason for each of these fields that is not known."""
        return {name: self.why_unknown or "" for name, value in self.fields().items() if value is None}


@dataclass(frozen=True, slots=True)
class Allocator:
    """A process and the memory that it charged in the window, net of what it freed.

    `anon_bytes`, `shmem_bytes`, `file_bytes` (page cache without shmem) and `kernel_bytes` (with sockets) are
    its kinds. They add up to `charged_bytes`, less memory of a kind that the cgroup no longer holds: other
    processes can free what this one was charged, as the reader of a socket does. `grew_from` and
    `grew_until`: the moments between which four fifths were charged. `exited`: when it ended; None: it was
    still there when the window ended.
    """

    tgid: int
    comm: str | None
    charged_bytes: int
    cmdline: str | None = None
    anon_bytes: int = 0
    shmem_bytes: int = 0
    file_bytes: int = 0
    kernel_bytes: int = 0
    grew_from: pd.Timestamp | None = None
    grew_until: pd.Timestamp | None = None
    exited: pd.Timestamp | None = None


@dataclass(frozen=True, slots=True)
class FurtherAllocators:
    """The processes that charged less than those in `OomReport.allocators`: their number and their charge."""

    processes: int
    charged_bytes: int


@dataclass(frozen=True, slots=True)
class ReclaimAttempt:
    """One attempt, from start to end, to free memory for the limit owner or for a cgroup below it.

    `kept_anon` and `kept_file` are the pages on either list that it could not free, by the names in
    `categories.RECLAIM_COUNTS`; None if the trace does not separate the lists.
    """

    time: pd.Timestamp
    duration_ms: float
    kind: str
    cgroup: str | None
    pid: int
    comm: str | None
    scanned_pages: int
    reclaimed_pages: int
    priority: int | None
    scanned_anon_pages: int
    scanned_file_pages: int
    reclaimed_anon_pages: int
    reclaimed_file_pages: int
    nr_dirty: int
    nr_writeback: int
    usage_bytes: int | None
    limit_bytes: int | None
    kept_anon: Mapping[str, int] | None = None
    kept_file: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Waiter:
    """A process that waited for memory, and how long, summed over its threads.

    `kinds_ms`: the same for each kind of wait that it met (`analysis.views.reclaim.KINDS`).
    """

    tgid: int
    comm: str | None
    stalled_ms: float
    kinds_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SwapIo:
    """The writes to swap, or the reads from it: their number and their size.

    `took_ms`: the `median` of their durations, and the `longest`; empty if no end was seen.
    """

    count: int
    size_bytes: int
    took_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """All attempts in the window; `transcript` holds the last ones, oldest first.

    `stall_ms` is the duration of these attempts. `waiters` are the processes of the cgroup that waited
    longest for memory in the window: in these attempts, in other attempts or for another reason.
    `swap_writes` and `swap_reads` count pages of the cgroup, whichever task caused the IO.
    `requested_cache_pages`: the page cache that writes to memory.reclaim took, not the limit. The numbers are
    None if only a kernel log has the kill.
    """

    attempts: int | None = None
    scanned_pages: int | None = None
    reclaimed_pages: int | None = None
    stall_ms: float | None = None
    transcript: tuple[ReclaimAttempt, ...] = ()
    waiters: tuple[Waiter, ...] = ()
    swap_writes: SwapIo | None = None
    swap_reads: SwapIo | None = None
    requested_cache_pages: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMemory:
    """What looks and samples show of the memory of a cgroup that was killed in, or that lived.

    `mappings`: the processes, the largest first; empty if there was no look. `runtime`: what their runtimes
    showed. `cached`: the page cache by file; None: there was no look. `code`: the code that made memory grow
    and holds it, the largest share first; empty if it was not sampled. `code_sampled_share`: the part of that
    growth that was sampled. `code_memory`: what the samples stand for; None: not known.
    """

    mappings: tuple[ProcessMemory, ...] = ()
    runtime: tuple[Runtime, ...] = ()
    cached: CacheContents | None = None
    code: tuple[GrownCode, ...] = ()
    code_sampled_share: float | None = None
    code_memory: SampledMemory | None = None

    @property
    def grown(self) -> Grown:
        """Return what is known of the code that made memory grow."""
        return Grown(self.code, self.code_sampled_share, self.code_memory)
