"""Names of user-space addresses, found while the process exists, and never guessed.

A frame is `symbol [module]`, with ` (file:line)` where the file of the module says it;
`[module]+0xfunction+0xoffset` or `[module]+0xoffset` if the module has no symbol there, or else the bare
address. It is also the bare address if the process is gone, or has executed another program since its stack
was taken. An address at which functions are inlined has a frame for each.

A stack ends before an address that is no code. Without frame pointers and without a copy of the stack, any
value of the stack may be taken for a return address.
"""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from tracer.kernel.process.mapped_ranges import MappedRange, read_maps

_MOST_TABLES: Final = 4  # a table has a child process of 8 MiB, and an open file for each module
_MOST_PROCESSES: Final = 64
ENDED_KEPT_S: Final = 3.0
"""The time without a look-up after which the table of an ended process is freed: some of its stacks may still
wait. While processes are killed in a loop, each would leave one."""
_MOST_NAMES: Final = 1 << 16  # of one process
_MOST_LOOKING: Final = 0.05  # the share of time in which mappings are read
_MOST_FRAMES: Final = 512  # of a stack
_LONGEST_NAME: Final = 512  # of a symbol; C++ templates and hostile files make them long


class ExecImage(NamedTuple):
    """The program that a process runs, known by fields of mm_struct that each exec chooses anew."""

    start_code: int
    start_stack: int


_OF_KERNEL: Final = (b"[vdso]", b"[vsyscall]", b"[uprobes]")
"""Mappings with code that the kernel makes in each process."""

_NO_IMAGE: Final = ExecImage(0, 0)  # of a process that exits or is gone

_NEVER_MAPPED: Final = 1 << 12
"""No program maps the page at address 0 (mmap_min_addr in Documentation/admin-guide/sysctl/vm.rst)."""

_USER_BITS: Final = 47 if os.uname().machine == "x86_64" else 56
"""An address of a process has at most so many bits; on x86-64, more only for memory that asks for it, which
code does not (Documentation/arch/x86/x86_64/5level-paging.rst)."""


class SourceFrame(NamedTuple):
    """A function and the line that runs in it, as far as they are known."""

    function: str | None
    file: str | None
    line: int | None


class Resolved(NamedTuple):
    """What is at an address: a symbol, the offset in it, and the path of the module.

    Without a symbol, the offset is relative to the module, and `begin` is where the function begins, if that
    is known; without a module, the offset is the address. `source`: the functions that are inlined there, the
    innermost one first, and last the function of the symbol, whose `function` is None.
    """

    symbol: str | None
    offset: int
    module: str | None
    source: tuple[SourceFrame, ...] = ()
    begin: int | None = None


class SymbolTable(Protocol):
    """The symbols of a process, as of when the table was made."""

    def resolve(self, address: int) -> Resolved:
        """Return what is at an address."""

    def close(self) -> None:
        """Free the table."""


class StackCopy(NamedTuple):
    """The registers of a task in user mode, as struct pt_regs, and its stack from the stack pointer on."""

    registers: bytes
    stack: bytes


class CodeTable(SymbolTable, Protocol):
    """The symbols of a process, and what it takes to unwind its stacks."""

    def unwind(self, copy: StackCopy) -> list[int]:
        """Return the addresses of a stack, innermost first; nothing if it cannot be unwound."""


class ProcessTable(Protocol):
    """A `CodeTable` that is asked for many addresses at once."""

    def resolve_all(self, addresses: Sequence[int]) -> list[Resolved]:
        """Return what is at each address."""

    def unwind(self, copy: StackCopy) -> list[int]:
        """See `CodeTable.unwind`."""

    def close(self) -> None:
        """Free the table."""


class NamedStack(NamedTuple):
    """The frames of a stack, innermost first. `left_code`: unwinding ended at an address that is no code."""

    frames: list[str]
    left_code: bool


_Place = tuple[int, bool]
"""An address, and whether it is a return address: that lies behind the call, and behind the function if that
call never returns."""


_CODE, _DATA, _EITHER = range(3)
"""What may be at an address. Either: of a mapping that came later, or that a compiler makes executable."""


class _Layout:
    """The mappings of a process: code, data, or either."""

    def __init__(self, mapped: Iterable[MappedRange], *, has_compiler: bool) -> None:
        self._starts, self._ends, self._kinds = array("Q"), array("Q"), bytearray()
        for one in mapped:
            is_lasting = not has_compiler or one.inode or one.name.startswith(b"[")
            kind = _CODE if "x" in one.permissions else _DATA if is_lasting else _EITHER
            if self._ends and self._ends[-1] == one.start and self._kinds[-1] == kind:
                self._ends[-1] = one.end
                continue
            self._starts.append(one.start)
            self._ends.append(one.end)
            self._kinds.append(kind)

    def at(self, address: int) -> int:
        position = bisect_right(self._starts, address) - 1
        is_mapped = position >= 0 and address < self._ends[position]
        return self._kinds[position] if is_mapped else _EITHER


@dataclass(frozen=True)
class _Code:
    """The mappings of files with code, and whether a process has other code than these and the kernel's."""

    modules: list[MappedRange]
    has_other: bool
    layout: _Layout = field(default=_Layout([], has_compiler=False), compare=False)

    @classmethod
    def of(cls, mapped: list[MappedRange]) -> Self:
        code = [one for one in mapped if "x" in one.permissions]
        modules = [one for one in code if one.inode]
        has_other = any(not one.inode and one.name not in _OF_KERNEL for one in code)
        return cls(modules, has_other, _Layout(mapped, has_compiler=has_other))

    def length(self, addresses: Sequence[int]) -> int:
        """Return how many addresses of a stack there are before the first one that is no code. The last ones
        must be known to be code, unless a just-in-time compiler may have made some since."""
        kinds = [self.layout.at(address) for address in addresses]
        end = kinds.index(_DATA) if _DATA in kinds else len(kinds)
        while end and not self.has_other and kinds[end - 1] == _EITHER:
            end -= 1
        return end


@dataclass
class _Process:
    """`of_tgid`: the process whose table it is. Processes that share a table share the names. `is_of_file`:
    the table is of the program's file, and stays valid when the process ends or runs another program."""

    image: ExecImage
    code: _Code
    table: ProcessTable
    of_tgid: int
    used_s: float = 0.0
    look_s: float = 0.0  # when to look at its mappings again
    names: dict[_Place, list[str]] = field(default_factory=dict)
    is_of_file: bool = False


class UserSymbols:
    """Names addresses of processes.

    `table_of` makes the symbol table of a process (tgid). The tables of the most recently named processes are
    kept: each takes a child process, which holds what memory the recorder has changed since it was forked.
    The workers of a server, which are forked without an exec, share the table of one of them: they have the
    same files at the same addresses. Each has its own just-in-time compiler, so a process with one shares no
    table. `now_s` is a clock. `table_of_ended` makes a table for a process that no longer runs an image, of
    what is known about its program; None: nothing is.
    """

    def __init__(
        self,
        table_of: Callable[[int], ProcessTable],
        proc: Path = Path("/proc"),
        now_s: Callable[[], float] = time.monotonic,
        table_of_ended: Callable[[int, ExecImage], ProcessTable | None] = lambda _tgid, _image: None,
    ) -> None:
        self._table_of = table_of
        self._proc = proc
        self._now_s = now_s
        self._table_of_ended = table_of_ended
        self._known: dict[int, _Process] = {}  # by tgid, the last one needed last

    def name(
        self, tgid: int, addresses: Sequence[int], image: ExecImage, copy: StackCopy | None = None
    ) -> NamedStack:
        """Return the names of addresses, innermost first, of the process `tgid` while it ran `image`.

        `addresses` are found by frame pointers. With a copy of the stack, the names are of the addresses that
        unwinding finds, if it can.
        """
        known = self._current(tgid, image, read_image(self._proc, tgid))
        may_look = known is not None and (
            known.is_of_file or read_image(self._proc, tgid) in (_NO_IMAGE, known.image)
        )
        if known is not None and copy is not None:
            unwound = _before_the_end(known.table.unwind(copy), known.code)
            addresses = joined(unwound, list(addresses))
        whole = len(addresses)
        addresses = _before_the_end(addresses, None if known is None else known.code)
        places = [(address, bool(number)) for number, address in enumerate(addresses)]
        found = {} if known is None else _names(known, places, may_look=may_look)
        names = (found.get(place) or [f"{place[0]:#x}"] for place in places)
        return NamedStack([*islice(chain.from_iterable(names), _MOST_FRAMES)], len(addresses) < whole)

    def _current(self, tgid: int, image: ExecImage, now: ExecImage) -> _Process | None:
        """Return the process with a symbol table that is valid for `image`; None if there is none."""
        if image == now != _NO_IMAGE:
            self._look(tgid, image)
        if not self._knows(tgid, image) and not self._runs(tgid, image):
            self._look_back(tgid, image)
        if (known := self._known.pop(tgid, None)) is None:
            return None
        known.used_s = self._now_s()
        self._known[tgid] = known
        while len(self._known) > _MOST_PROCESSES or len(self._tables()) > _MOST_TABLES:
            self._forget(next(iter(self._known)))
        return known if known.image == image else None

    @property
    def has_tables(self) -> bool:
        """Return whether a table, and so a child process, is kept."""
        return bool(self._known)

    def _tables(self) -> set[int]:
        return {id(known.table) for known in self._known.values()}

    def _forget(self, tgid: int) -> None:
        self._free(self._known.pop(tgid).table)

    def _free(self, table: ProcessTable) -> None:
        """Close a table, unless another process has it."""
        if id(table) not in self._tables():
            table.close()

    def _look(self, tgid: int, image: ExecImage) -> None:
        """Know a process that runs `image`, with another table if what it has mapped has changed.

        Each stack may need this, and to read the mappings of a large program takes milliseconds. A process
        that ends meanwhile, or runs its next program, has no such mappings any more: it stays known as it is.
        """
        begin_s = self._now_s()
        known = self._known.get(tgid)
        if known is not None and known.image == image and begin_s < known.look_s:
            return
        code = _code(self._proc, tgid)
        look_s = begin_s + (self._now_s() - begin_s) / _MOST_LOOKING
        if (
            known is None
            or (known.image, known.code) != (image, code)
            or not self._runs(known.of_tgid, image)
        ):
            self._free_ended(tgid)
            made = self._related(image, code) or _Process(image, code, self._table_of(tgid), tgid)
            if not self._runs(tgid, image):
                self._free(made.table)
                return
            self._known[tgid] = made
            if known is not None:
                self._free(known.table)
            known = made
        known.code = code
        known.look_s = look_s

    def _look_back(self, tgid: int, image: ExecImage) -> None:
        """Know what there is to be known of a process that no longer runs `image`."""
        if (table := self._table_of_ended(tgid, image)) is None:
            return
        self._free_ended(tgid)
        if tgid in self._known:
            self._forget(tgid)
        self._known[tgid] = _Process(image, _Code([], has_other=True), table, tgid, is_of_file=True)

    def _knows(self, tgid: int, image: ExecImage) -> bool:
        return tgid in self._known and self._known[tgid].image == image

    def _runs(self, tgid: int, image: ExecImage) -> bool:
        return read_image(self._proc, tgid) == image

    def _related(self, image: ExecImage, code: _Code) -> _Process | None:
        """Return what a process knows whose table is that of a process with the same image and code."""
        for one in self._known.values():
            is_same = (one.image, one.code) == (image, code) and not code.has_other
            if is_same and self._runs(one.of_tgid, image):
                return replace(one)
        return None

    def _free_ended(self, besides: int) -> None:
        """Free the tables of processes that ended and have had no stack for a while."""
        since_s = self._now_s() - ENDED_KEPT_S
        for tgid in [tgid for tgid, known in self._known.items() if known.used_s < since_s]:
            if tgid != besides and not self._runs(tgid, self._known[tgid].image):
                self._forget(tgid)

    def close(self) -> None:
        while self._known:
            self._forget(next(iter(self._known)))


def joined(unwound: list[int], by_frame_pointers: list[int]) -> list[int]:
    """Return the frames that were unwound, and those beyond them that frame pointers show.

    Frame pointers miss functions, and lead nowhere in code without them, but reach beyond the copied stack.
    """
    if len(unwound) < 2:
        return by_frame_pointers
    last = unwound[-1]
    beyond = by_frame_pointers.index(last) + 1 if last in by_frame_pointers else len(by_frame_pointers)
    return unwound + by_frame_pointers[beyond:]


def read_image(proc: Path, tgid: int) -> ExecImage:
    """Return the program that a process runs; zeros if the process has ended (proc_pid_stat(5))."""
    try:
        fields = (proc / str(tgid) / "stat").read_bytes().rpartition(b")")[2].split()
        return ExecImage(int(fields[23]), int(fields[25]))
    except (OSError, IndexError, ValueError):
        return _NO_IMAGE


def _code(proc: Path, tgid: int) -> _Code:
    """Return the code of a process; none if the process has ended."""
    try:
        return _Code.of(read_maps(proc / str(tgid)))
    except OSError:
        return _Code([], has_other=False)


def _before_the_end(addresses: Sequence[int], code: _Code | None) -> list[int]:
    """Return the addresses before the first one that is no code, as far as that is known. The first address
    is that of an instruction that ran."""
    possible = [_NEVER_MAPPED <= address < 1 << _USER_BITS for address in addresses[1:]]
    callers = addresses[1 : possible.index(False) + 1] if not all(possible) else addresses[1:]
    if code is not None:
        callers = callers[: code.length(callers)]
    return [*addresses[:1], *callers]


def _names(process: _Process, places: Sequence[_Place], *, may_look: bool) -> dict[_Place, list[str]]:
    """Return the names at each place, innermost first, as far as they are known.

    `may_look`: the process still runs the program of the table.
    """
    known = {place: process.names[place] for place in places if place in process.names}
    if may_look:
        new = [place for place in dict.fromkeys(places) if place not in known]
        at = [max(address - is_return, 0) for address, is_return in new]
        for place, resolved in zip(new, process.table.resolve_all(at), strict=True):
            known[place], is_lasting = _named(resolved, place)
            if is_lasting:
                if len(process.names) >= _MOST_NAMES:
                    process.names.clear()
                process.names[place] = known[place]
    return known


def _named(resolved: Resolved, place: _Place) -> tuple[list[str], bool]:
    """Return the names, and whether they last as long as the module is mapped.

    A name in memory without a file does not last: a just-in-time compiler may put other code there.
    """
    symbol, offset, path, source, begin = resolved
    address, is_return = place[0], place[1] and place[0] > 0
    is_file = path is not None and path.startswith(
        "/"
    )  # neither [vdso] nor memory of a just-in-time compiler
    module = f"[{os.path.basename(path)}]" if path and is_file else None  # noqa: PTH119  it may be any text
    if symbol is None:
        offset += is_return
        inside = f"{offset:#x}" if begin is None else f"{begin:#x}+{offset - begin:#x}"
        return [f"{module}+{inside}" if module else f"{address:#x}"], path is not None
    if module is None:
        return [_cut(symbol)], path is not None
    functions = source or (SourceFrame(None, None, None),)
    return [_in_source(f"{_cut(one.function or symbol)} {module}", one) for one in functions], True


def _cut(symbol: str) -> str:
    return symbol if len(symbol) <= _LONGEST_NAME else symbol[:_LONGEST_NAME] + "…"


def _in_source(name: str, source: SourceFrame) -> str:
    return name if source.line is None else f"{name} ({source.file}:{source.line})"
