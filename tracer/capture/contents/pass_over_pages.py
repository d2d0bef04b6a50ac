"""One pass over all pages of the machine, by the programs of bpf/contents.

The kernel runs a program to its end, and on a kernel that does not preempt, nothing else runs on that CPU
meanwhile. So each run is short, and the kernel may run something else between two of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.attach import Attacher
from tracer.capture.bpf.compiled.cache import Cache, cache_folder
from tracer.capture.bpf.compiled.compiler import Compilation, Source, source_text
from tracer.capture.bpf.syscall import Runnable, machine
from tracer.errors import TracerError
from tracer.kernel import physical_memory, struct_header
from tracer.kernel.btf import VMLINUX, Btf
from tracer.wire.dtypes import WIRE

RUN_NS: Final = 100_000
"""The time after which a run ends."""

_SOURCES: Final = "contents/*.bpf.c"
_PROGRAMS: Final = ("scan_pages", "find_pages", "name_file", "name_cache", "name_cgroup")
_CPUS: Final = 1  # no map has values by CPU
_OBJECTS: Final = 1
_SLAB: Final = 2
_SOME: Final = 4
_PART_FRAMES: Final = 1 << 14
"""The pages in one part of memory: 64 MiB, if they have 4 KiB, take a millisecond."""

_GOLDEN: Final = (5**0.5 - 1) / 2

_OWNER: Final = np.dtype([(name, "<u8") for name in ("cgroup_id", "object", "kind")])
SIZES: Final = ("bytes", "dirty_bytes", "writeback_bytes", "active_bytes", "unevictable_bytes")
_AMOUNT: Final = np.dtype([(name, "<u8") for name in (*SIZES, "objects", "address")])
AMOUNT: Final = np.dtype([*_OWNER.descr, *_AMOUNT.descr])
"""A key of the maps `amounts` and `totals`, and its value: `struct owner` and `struct amount`."""

Amounts = npt.NDArray[Any]


class NamedCgroup(NamedTuple):
    """The path of a cgroup from the root of the hierarchy ("…" stands for names without room), and whether
    it has a directory there: it has not been removed."""

    path: str
    has_directory: bool


@dataclass(frozen=True)
class Found:
    """What a pass found: `totals` has a row for each cgroup and kind, `amounts` one for each of their files
    and kmem_caches, both of the dtype `AMOUNT`.

    `unnamed_bytes` are in `totals` alone, because `amounts` had no room. `frames` is the number of pages that
    were passed, in so many `runs`.
    """

    totals: Amounts
    amounts: Amounts
    unnamed_bytes: int
    frames: int
    runs: int


class PassOverPages:
    """The programs, loaded for one pass. A context manager.

    Raises TracerError if the kernel or BCC is unfit, or without root.
    """

    def __init__(self, btf: Path = VMLINUX) -> None:
        compilation = Compilation(_compose, ("contents", mmap.PAGESIZE), Cache(cache_folder()), btf)
        try:
            unit = compilation.result()
        except BaseException:
            compilation.stop()
            raise
        self._attacher = Attacher(unit.object_file, unit.types, _CPUS, {}, {})
        self._programs: Mapping[str, Runnable] = {}
        try:
            self._programs = {name: Runnable(self._attacher.load_runnable(name)) for name in _PROGRAMS}
            self._pages = self._find_pages()
        except BaseException:
            self._attacher.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._attacher.close()

    def _find_pages(self) -> int:
        """Return the address of the array of struct page.

        SPARSEMEM without SPARSEMEM_VMEMMAP has an array for each section of memory (__pfn_to_page() in
        include/asm-generic/memory_model.h).
        """
        found = set()
        with physical_memory.landmarks() as marks:
            for mark in marks:
                frame = mark.frame()
                is_missing = frame is None or self._programs["find_pages"]([mark.fd, frame])
                if not is_missing and mark.frame() == frame:  # the page was not moved meanwhile
                    found.add(int(self._attacher.map("found_pages")[0].value))
        if len(found) > 1:
            raise TracerError(
                "this kernel's pages are not one array (it is built without CONFIG_SPARSEMEM_VMEMMAP): "
                "what is in memory cannot be read"
            )
        if not found:
            raise TracerError("the kernel's array of pages was not found: see memcg-tracer doctor")
        return found.pop()

    def scan(
        self,
        selected: Iterable[int] | None,
        *,
        objects: bool = True,
        slab: bool = True,
        counts: Callable[[int, int], None] = lambda _done, _whole: None,
    ) -> Found:
        """Pass over all pages once, and return what is charged to the `selected` cgroups (ids) and those
        below them, removed ones included; None: to any cgroup.

        `objects`: tell files and kmem_caches apart. `slab`: look at slab. `counts` is called with the number
        of pages that were passed, and of all. Raises TracerError.
        """
        ranges = physical_memory.ram()
        whole, done, runs = sum(map(len, ranges)), 0, 0
        wants = (_OBJECTS if objects else 0) | (_SLAB if slab else 0)
        if selected is not None:
            wants |= _SOME
            for cgroup_id in selected:
                self._attacher.map("selected")[cgroup_id] = 1
        scan = self._programs["scan_pages"]
        for frames in spread(ranges):
            at = frames.start
            while at < frames.stop:
                passed = scan([self._pages, at, frames.stop, wants, RUN_NS])
                at, done, runs = at + passed, done + passed, runs + 1
                counts(min(done, whole), whole)
        lost = [int(self._attacher.map("unmapped")[which].value) for which in (0, 1)]
        if lost[1]:
            raise TracerError("there are more cgroups with memory than can be told apart: give -c CGROUP")
        return Found(self._amounts("totals"), self._amounts("amounts"), lost[0], whole, runs)

    def _amounts(self, name: str) -> Amounts:
        keys, values = self._attacher.map(name).read_elements()
        owners = np.frombuffer(keys, _OWNER)
        sums = np.frombuffer(values, _AMOUNT)
        rows = np.empty(len(owners), AMOUNT)
        for part in (owners, sums):
            for field in part.dtype.names or ():
                rows[field] = part[field]
        return rows

    def file(self, amount: np.void) -> npt.NDArray[Any] | None:
        """Return the record of a file (`WIRE["inode"]`, one element); None if it is gone by now."""
        if self._programs["name_file"]([int(amount["address"]), int(amount["object"])]):
            return None
        return np.frombuffer(bytes(self._attacher.map("named_file")[0]), WIRE["inode"])

    def cache(self, amount: np.void) -> bytes | None:
        """Return the name of a kmem_cache; None if it is gone by now."""
        if self._programs["name_cache"]([int(amount["address"])]):
            return None
        return bytes(self._attacher.map("named_cache")[0].text)

    def cgroup(self, total: np.void) -> NamedCgroup | None:
        """Return the name of a cgroup; None if it is gone by now."""
        if self._programs["name_cgroup"]([int(total["address"]), int(total["cgroup_id"])]):
            return None
        name = self._attacher.map("named_cgroup")[0]
        names = bytes(name.path)[: name.length].split(b"/")[-2::-1]
        path = "/" + "/".join(one.decode("utf-8", "surrogateescape") for one in names)
        return NamedCgroup(path if name.is_whole else f"…{path}", bool(name.has_directory))


def spread(ranges: Iterable[range]) -> Iterator[range]:
    """Yield the frames of all ranges in parts, in an order that follows no movement of pages.

    Memory that is freed and filled again moves through the frames. In their order, a pass meets what moves
    along with it again and again, and little of what comes towards it. Here, the fraction of k times the
    golden ratio gives part k its place in the order. So as many pages are met twice as are not met, however
    far they move.
    """
    parts = [
        range(max(begin, frames.start), min(begin + _PART_FRAMES, frames.stop))
        for frames in ranges
        for begin in range(frames.start // _PART_FRAMES * _PART_FRAMES, frames.stop, _PART_FRAMES)
    ]
    for number in np.argsort(np.arange(len(parts)) * _GOLDEN % 1, kind="stable").tolist():
        yield parts[number]


def _compose(btf: Btf, _closed: Mapping[str, str]) -> Source:
    if (unfit := struct_header.why_unfit(btf)) is not None:
        raise TracerError(f"{unfit}; see memcg-tracer doctor")
    flags = [f"-D{machine().macro}", f"-DPAGE_SIZE={mmap.PAGESIZE}UL", "-g0", "-Wno-unused-function"]
    return Source(source_text(btf, [], _SOURCES), flags, [])
