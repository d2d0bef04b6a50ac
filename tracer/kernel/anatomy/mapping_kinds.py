"""The mappings of a process in groups that a reader knows: heap, arenas, thread stacks, files.

A mapping has no name for most of these, so its place says what it is:

* glibc aligns the heaps of its arenas to 64 MiB and reserves as much for each (HEAP_MAX_SIZE in
  malloc/arena.c). The unused end cannot be touched. The kernel may merge a heap with other memory that ends
  where it begins: both are one mapping then, and `anonymous`.
* The stack of a thread contains the thread's stack pointer. A thread that runs shows none, but pthread_create
  also maps a guard below each stack, and both with MAP_STACK (nptl/allocatestack.c). Such memory gets no huge
  pages since c4608d1bf7c6 ("mm: mmap: map MAP_STACK to VM_NOHUGEPAGE"), v6.7; on older kernels, it counts as
  a stack if it is as large as one whose thread waits.
* Go's heap begins at 0xc000000000 on 64-bit machines (mallocinit in runtime/malloc.go). The stacks of
  goroutines are in it, and so are the stack pointers of the threads that run them.
* HotSpot places the heap below 32 GiB while object pointers can be compressed
  (CompressedOops::mode in share/oops/compressedOops.hpp). ZGC maps a memfd of the name java_heap.
* V8 places each page of its heap at a random multiple of its size, 256 KiB, below 64 TiB (GetRandomMmapAddr
  in src/base/platform/platform-posix.cc, kPageSizeBits in src/common/globals.h), where the kernel of a 64-bit
  machine places nothing unasked. Its code is executable. Node has V8 in its program or in libnode.
* Memory that begins where the writable data of the program ends is its zero-initialised data (bss). Behind a
  library it may be anything: mmap(2) places new memory beside what is mapped there. The program has the
  lowest mapping of a file (ELF_ET_DYN_BASE in arch/x86/include/asm/elf.h lies below mmap_base).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Final

from tracer.kernel.anatomy.smaps import Mapping

KINDS: Final = {
    "heap": "the memory that brk(2) extends, where malloc begins",
    "arena": "heaps of glibc's arenas, which malloc makes for threads: 64 MiB of addresses each",
    "stack": "stacks of threads; `main`: the stack that the process began with",
    "go heap": "the heap of the Go runtime, with the stacks of goroutines",
    "java heap": "the heap of a Java virtual machine",
    "v8 heap": "the heap of V8 in Node.js, without the code that it made",
    "code": "executable memory of no file, such as code that a just-in-time compiler made",
    "bss": "zero-initialised data of the program",
    "anonymous": "other private memory of no file; the name is the one that the process gave (prctl)",
    "file copy": "private copies of pages of a file, which were written",
    "file": "pages of a file, as in the page cache; the process has them mapped",
    "shared": "pages of a mapping that other processes may share: a file, memfd, System V or /dev/zero",
    "other": "memory of the kernel, such as [vdso]",
    "unread": "memory in mappings that were not read; the name is the reason",
}
"""Kind of a group -> its meaning."""

MAIN: Final = b"main"
_ARENA_BYTES: Final = 64 << 20
_MOST_GUARD_BYTES: Final = 1 << 20
_GO_START: Final = 0xC000000000
_GO_END: Final = _GO_START + (1 << 40)
_JAVA_END: Final = 32 << 30
_V8_PAGE_BYTES: Final = 256 << 10
_V8_END: Final = 64 << 40
_NODE: Final = (b"/node", b"/nodejs")
_OF_KERNEL: Final = (b"[vdso]", b"[vvar]", b"[vvar_vclock]", b"[vsyscall]", b"[uprobes]")
_NAMED: Final = {name: ("other", name) for name in _OF_KERNEL} | {
    b"[heap]": ("heap", b""),
    b"[stack]": ("stack", MAIN),
    b"/memfd:java_heap": ("java heap", b""),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Mappings of one kind and name. `count` is the number of them; of stacks and arenas, the number of
    these. `pss_bytes` is None for the parts of private mappings of files, which have it in common."""

    kind: str
    name: bytes
    count: int
    size_bytes: int
    rss_bytes: int
    pss_bytes: int | None
    anon_bytes: int
    swap_bytes: int


def groups(mappings: Sequence[Mapping], stack_pointers: Collection[int] = ()) -> list[Group]:
    """Return the groups with memory in them, the one with most memory first, present and swapped out.

    `mappings` are those of one process, by address, and `stack_pointers` those of its threads.
    """
    found: dict[tuple[str, bytes], Group] = {}
    for part in _parts(mappings, stack_pointers):
        key = part.kind, part.name
        found[key] = _sum(found[key], part) if key in found else part
    held = (group for group in found.values() if group.rss_bytes or group.swap_bytes)
    return sorted(held, key=lambda group: -(group.rss_bytes + group.swap_bytes))


def folded(listed: Sequence[Group], most: int) -> list[Group]:
    """Return at most `most` groups and one for each kind: smaller ones of a kind are one without a name."""
    rest: dict[str, Group] = {}
    for group in listed[most:]:
        nameless = replace(group, name=b"")
        rest[group.kind] = _sum(rest[group.kind], nameless) if group.kind in rest else nameless
    return [*listed[:most], *rest.values()]


def _sum(one: Group, other: Group) -> Group:
    pss = None if one.pss_bytes is None or other.pss_bytes is None else one.pss_bytes + other.pss_bytes
    return Group(
        one.kind,
        one.name,
        one.count + other.count,
        one.size_bytes + other.size_bytes,
        one.rss_bytes + other.rss_bytes,
        pss,
        one.anon_bytes + other.anon_bytes,
        one.swap_bytes + other.swap_bytes,
    )


def _parts(mappings: Sequence[Mapping], stack_pointers: Collection[int]) -> Iterator[Group]:
    """Yield a group for each mapping, or two: a private mapping of a file may have pages of its own."""
    program = _Program(mappings, stack_pointers)
    for number, mapping in enumerate(mappings):
        if not mapping.rss_bytes and not mapping.swap_bytes:
            continue
        kind, name, count = program.kind(number)
        whole = Group(
            kind,
            name,
            count,
            mapping.end - mapping.start,
            mapping.rss_bytes,
            mapping.pss_bytes,
            mapping.anon_bytes,
            mapping.swap_bytes,
        )
        own = mapping.anon_bytes + mapping.swap_bytes
        if kind != "file" or not own:
            yield whole
            continue
        yield replace(whole, kind="file copy", rss_bytes=mapping.anon_bytes, pss_bytes=None)
        of_file = mapping.rss_bytes - mapping.anon_bytes
        yield replace(whole, rss_bytes=of_file, pss_bytes=None, anon_bytes=0, swap_bytes=0)


class _Program:
    """What the mappings of a process together show of each of them."""

    def __init__(self, mappings: Sequence[Mapping], stack_pointers: Collection[int]) -> None:
        self._mappings = mappings
        self._is_go = any(one.start == _GO_START and one.is_private_anonymous for one in mappings)
        self._is_java = any(one.name.endswith(b"/libjvm.so") for one in mappings)
        self._is_v8 = any(_is_node(one.name) for one in mappings)
        self._threads = _threads_in(mappings, stack_pointers)
        self._stack_sizes = set(self._sizes_of_stacks())
        self._has_arenas = any(_is_arena_with_end(*pair) for pair in pairwise(mappings))

    def kind(self, number: int) -> tuple[str, bytes, int]:
        """Return the kind and name of a mapping, and how many of the things that its kind counts it is."""
        mapping = self._mappings[number]
        if mapping.name in _NAMED:
            return *_NAMED[mapping.name], 1
        if not mapping.permissions.endswith("p"):
            return "shared", mapping.name, 1
        if mapping.inode:
            return "file", mapping.name, 1
        return self._of_a_runtime(number) or self._of_libc(number) or self._of_the_program(number)

    def _of_a_runtime(self, number: int) -> tuple[str, bytes, int] | None:
        mapping = self._mappings[number]
        is_at_go = _GO_START <= mapping.start < _GO_END or _given_name(mapping) == b"Go: heap"
        if self._is_go and is_at_go:
            return "go heap", b"", 1
        if self._is_v8 and _is_v8_page(mapping) and self._file_before(number) is None:
            return "v8 heap", b"", 1
        return ("java heap", b"", 1) if self._is_java and mapping.start < _JAVA_END else None

    def _of_libc(self, number: int) -> tuple[str, bytes, int] | None:
        mapping = self._mappings[number]
        if threads := self._threads.get(number, 0):
            return "stack", b"", threads
        if self._is_arena(number):
            return "arena", b"", -(-(mapping.end - mapping.start) // _ARENA_BYTES)
        return ("stack", b"", 1) if self._is_like_a_stack(number) else None

    def _of_the_program(self, number: int) -> tuple[str, bytes, int]:
        name = _given_name(self._mappings[number])
        if "x" in self._mappings[number].permissions:
            return "code", name, 1
        file = None if name else self._file_before(number)
        return ("anonymous", name, 1) if file is None else ("bss", file, 1)

    def _before(self, number: int) -> Mapping | None:
        """Return the mapping that ends where another one begins."""
        before = self._mappings[number - 1] if number else None
        return before if before is not None and before.end == self._mappings[number].start else None

    def _is_arena(self, number: int) -> bool:
        """Return whether a mapping holds heaps of arenas; a full one has no untouchable end, and may have
        grown together with its neighbour."""
        mapping = self._mappings[number]
        if mapping.start % _ARENA_BYTES or not mapping.permissions.startswith("rw"):
            return False
        following = self._mappings[number + 1 : number + 2]
        return any(_is_arena_with_end(mapping, one) for one in following) or (
            self._has_arenas and mapping.end % _ARENA_BYTES == 0
        )

    def _is_like_a_stack(self, number: int) -> bool:
        guard, mapping = self._before(number), self._mappings[number]
        if guard is None or not guard.is_guard or guard.end - guard.start > _MOST_GUARD_BYTES:
            return False
        is_map_stack = guard.is_small_paged and mapping.is_small_paged
        return is_map_stack or mapping.end - guard.start in self._stack_sizes

    def _sizes_of_stacks(self) -> Iterator[int]:
        """Yield the size of each stack whose thread waits, with the guard below it."""
        for number in self._threads:
            guard = self._before(number)
            if guard is not None and guard.is_guard:
                yield self._mappings[number].end - guard.start

    def _file_before(self, number: int) -> bytes | None:
        before = self._before(number)
        is_data = before is not None and before.inode and before.permissions.startswith("rw-p")
        return before.name if before is not None and is_data and before.inode == self._program else None

    @cached_property
    def _program(self) -> int | None:
        """Return the inode of the program's file; None if no file is mapped."""
        return next((mapping.inode for mapping in self._mappings if mapping.inode), None)


def _is_node(name: bytes) -> bool:
    return name.endswith(_NODE) or b"/libnode.so" in name


def _is_v8_page(mapping: Mapping) -> bool:
    """Return whether a mapping may begin with a page of V8's heap."""
    is_placed = mapping.start % _V8_PAGE_BYTES == 0 and mapping.start < _V8_END
    return is_placed and "x" not in mapping.permissions and not _given_name(mapping)


def _given_name(mapping: Mapping) -> bytes:
    """Return the name that the process gave to memory of no file (PR_SET_VMA_ANON_NAME), or b""."""
    name = mapping.name
    return name[len(b"[anon:") : -1].strip() if name.startswith(b"[anon:") and name.endswith(b"]") else b""


def _is_arena_with_end(mapping: Mapping, following: Mapping) -> bool:
    """Return whether a mapping is the used part of the heap of an arena, and `following` its unused end."""
    return (
        mapping.start % _ARENA_BYTES == 0
        and mapping.is_private_anonymous
        and not mapping.is_guard
        and following.is_guard
        and following.start == mapping.end
        and following.end % _ARENA_BYTES == 0
        and following.end - following.start < _ARENA_BYTES
        and not _GO_START <= mapping.start < _GO_END
    )


def _threads_in(mappings: Sequence[Mapping], stack_pointers: Collection[int]) -> dict[int, int]:
    """Return the number of a mapping -> how many threads have their stack pointer in it.

    One mapping holds several stacks if their guards are pages of it (MADV_GUARD_INSTALL, glibc 2.42).
    """
    found: dict[int, int] = {}
    waiting = sorted(stack_pointers, reverse=True)
    for number, mapping in enumerate(mappings):
        while waiting and waiting[-1] < mapping.start:
            waiting.pop()
        while waiting and waiting[-1] < mapping.end:
            waiting.pop()
            found[number] = found.get(number, 0) + 1
    return found
