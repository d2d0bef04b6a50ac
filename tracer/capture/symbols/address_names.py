"""The names behind the addresses of a stack, as long as the process lives; never a guess.

A frame is `symbol [module]`, or `[module]+0xoffset` where the module has no symbol there, or else the bare
address. That it is as well where the process is gone, or runs another program by now than when its stack was
taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_MOST_PROCESSES: Final = 8  # a table has an open file for each module
_MOST_NAMES: Final = 1 << 16  # of one process
_LONGEST_NAME: Final = 512  # of a symbol; templates make them long, and so can who wants to


class Program(NamedTuple):
    """Where the program of a process lies, chosen anew by each exec (mm_struct's start_code, start_stack)."""

    start_code: int
    start_stack: int


_NO_PROGRAM: Final = Program(0, 0)  # what a process has that exits


class SymbolTable(Protocol):
    """The symbols of a process, as of when it was made."""

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """(symbol, offset, path of the module): of a symbol that is not known, the offset in the module; of a
        module that is not known, the address."""

    def close(self) -> None:
        """Free it."""


@dataclass
class _Process:
    program: Program
    modules: bytes
    table: SymbolTable
    names: dict[tuple[int, bool], str] = field(default_factory=dict)


class UserSymbols:
    """Names addresses of processes. `table_of` makes the symbol table of a process; of the few that were
    needed last, it is kept.
    """

    def __init__(self, table_of: Callable[[int], SymbolTable], proc: Path = Path("/proc")) -> None:
        self._table_of = table_of
        self._proc = proc
        self._known: dict[int, _Process] = {}  # by tgid, the last one needed last

    def frames(self, tgid: int, addresses: Iterable[int], program: Program) -> list[str]:
        """A name for each address, innermost first, of the process that had this number and ran `program`."""
        now = read_program(self._proc, tgid)
        known = self._current(tgid, program, now)
        may_look = now in (_NO_PROGRAM, known.program) if known else False
        return [
            f"{address:#x}" if known is None else _name(known, address, bool(number), may_look)
            for number, address in enumerate(addresses)
        ]

    def _current(self, tgid: int, program: Program, now: Program) -> _Process | None:
        """The table that was true when the process ran `program`."""
        known = self._known.pop(tgid, None)
        if program == now != _NO_PROGRAM:
            modules = _modules(self._proc, tgid)
            if known is None or known.program != program or known.modules != modules:
                if known:
                    known.table.close()
                known = _Process(program, modules, self._table_of(tgid))
                if read_program(self._proc, tgid) != program:  # the table may be of what came after it
                    known.table.close()
                    known = None
        if known is None:
            return None
        self._known[tgid] = known
        while len(self._known) > _MOST_PROCESSES:
            self._known.pop(next(iter(self._known))).table.close()
        return known if known.program == program else None

    def close(self) -> None:
        """Free all tables."""
        while self._known:
            self._known.popitem()[1].table.close()


def read_program(proc: Path, tgid: int) -> Program:
    """What a process runs; zeros where it has ended (proc_pid_stat(5))."""
    try:
        fields = (proc / str(tgid) / "stat").read_bytes().rpartition(b")")[2].split()
        return Program(int(fields[23]), int(fields[25]))
    except (OSError, IndexError, ValueError):
        return _NO_PROGRAM


def _modules(proc: Path, tgid: int) -> bytes:
    """The mappings of files that hold code, as the kernel lists them (proc_pid_maps(5))."""
    try:
        lines = (proc / str(tgid) / "maps").read_bytes().splitlines()
    except OSError:
        return b""
    return b"\n".join(line for line in lines if b"x" in line.split()[1] and line.split()[4] != b"0")


def _name(process: _Process, address: int, is_return: bool, may_look: bool) -> str:
    """`is_return`: the address is one to return to, which lies behind the call, and behind the function if
    that call never returns. `may_look`: the table would still be asked of the same program.
    """
    name = process.names.get((address, is_return))
    if name is None:
        if not may_look:
            return f"{address:#x}"
        name, is_lasting = _look_up(process.table, address, is_return and address > 0)
        if is_lasting:
            if len(process.names) >= _MOST_NAMES:
                process.names.clear()
            process.names[address, is_return] = name
    return name


def _look_up(table: SymbolTable, address: int, is_return: bool) -> tuple[str, bool]:
    """The name, and whether that is one for as long as the module is mapped: where code was just made, and
    where nothing is yet, something else may be soon.
    """
    symbol, offset, path = table.resolve(address - is_return)
    is_file = path is not None and path.startswith("/")  # no [vdso], and no memory of a just-in-time compiler
    module = f"[{os.path.basename(path)}]" if path and is_file else None  # noqa: PTH119  it may be any text
    if symbol is None:
        return f"{module}+{offset + is_return:#x}" if module else f"{address:#x}", path is not None
    symbol = symbol if len(symbol) <= _LONGEST_NAME else symbol[:_LONGEST_NAME] + "…"
    return f"{symbol} {module}" if module else symbol, path is not None
