"""A symbol table in a child process: its answers, and the isolation of its failures."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tracer.capture.symbols import symbol_tables
from tracer.capture.symbols.address_names import Resolved, SourceFrame, StackCopy
from tracer.capture.symbols.symbol_tables import SymbolProcess


class Table:
    def resolve(self, address: int) -> Resolved:
        if address == 0x666:
            os.closerange(0, 150)  # as BCC may do
        if address == 0xBAD:
            raise ValueError
        if address == 0xA51EE9:
            time.sleep(60)
        if address == 0xC0DE:
            while True:
                pass
        if address == 0xDEAD:
            os._exit(1)
        if address == 0x10:
            return Resolved("f" * 10_000, 1, "/lib/\udcff")
        if address == 0x20:
            return Resolved("main", 1, "/bin/work", (SourceFrame("\U0001f40d" * 9, "\x01", 7),) * 3)
        if address == 0x30:
            return Resolved("main", 1, "/bin/work", (SourceFrame("f" * 10_000, "a.c", 7),) * 9)
        return (
            Resolved(f"f{address:x}", 2, "/bin/work") if address < 0x1000 else Resolved(None, address, None)
        )

    def unwind(self, copy: StackCopy) -> list[int]:
        if copy.stack == b"bad":
            raise ValueError
        return [len(copy.registers), len(copy.stack), (1 << 64) - 1]

    def close(self) -> None:
        raise AssertionError("the child ends instead")


def at(table: SymbolProcess, address: int) -> Resolved:
    (found,) = table.resolve_all([address])
    return found


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_resolve_returns_the_answers_of_the_table() -> None:
    before = descriptors()
    table = SymbolProcess(Table)
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    for address in (0, 1 << 63, (1 << 64) - 1):
        assert at(table, address) == Table().resolve(address)
    symbol, offset, module, source, _ = at(table, 0x10)
    assert (len(symbol or ""), offset, module, source) == (4096, 1, "/lib/\udcff", ())
    assert at(table, 0x20) == Table().resolve(0x20)
    assert at(table, 0x30) == Resolved("main", 1, "/bin/work"), "too long for a message"
    table.close()
    assert descriptors() == before


def test_copy_of_a_stack_is_unwound_in_the_child() -> None:
    table = SymbolProcess(Table)
    registers = bytes(8 * 21)
    for size in (0, 1, 16 << 10):
        assert table.unwind(StackCopy(registers, bytes(size))) == [len(registers), size, (1 << 64) - 1]
    assert table.unwind(StackCopy(registers, b"bad")) == []
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    at(table, 0xDEAD)
    assert table.unwind(StackCopy(registers, b"")) == [], "the child has ended"
    table.close()


def test_descriptors_closed_in_the_child_stay_open_in_the_parent() -> None:
    table = SymbolProcess(Table)
    before = descriptors()
    assert at(table, 0x666) == Resolved("f666", 2, "/bin/work")
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    assert descriptors() == before
    table.close()


@pytest.mark.parametrize("address", [-1, 1 << 64, 1 << 200])
def test_resolve_of_an_impossible_address_finds_nothing(address: int) -> None:
    table = SymbolProcess(Table)
    symbol, *_ = at(table, address)
    assert symbol in (None, "f0")
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    table.close()


def test_failed_look_up_leaves_the_child_alive() -> None:
    table = SymbolProcess(Table)
    assert at(table, 0xBAD) == Resolved(None, 0xBAD, None)
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    table.close()


def test_child_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_tables, "_ANSWERS_WITHIN_S", 0.3)
    table = SymbolProcess(Table)
    assert at(table, 0xA51EE9) == Resolved(None, 0xA51EE9, None)
    monkeypatch.setattr(symbol_tables, "_ANSWERS_WITHIN_S", 60)
    begin = time.monotonic()
    assert at(table, 0xAB) == Resolved(None, 0xAB, None)
    assert time.monotonic() - begin < 30, "it did not wait for the child"
    table.close()


def test_child_that_computes_without_end_is_ended_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_tables, "_MOST_CPU_S", 0.2)
    before = children()
    handler = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        table = SymbolProcess(Table)
    finally:
        signal.signal(signal.SIGPROF, handler)
    (child,) = map(int, children() - before)
    assert at(table, 0xC0DE) == Resolved(None, 0xC0DE, None)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGPROF
    assert table.unwind(StackCopy(bytes(8 * 21), b"")) == []
    table.close()


@pytest.mark.parametrize("when", ["made", "asked"])
def test_child_that_ended_resolves_nothing(when: str) -> None:
    def make() -> Table:
        if when == "made":
            raise RuntimeError
        return Table()

    table = SymbolProcess(make)
    assert at(table, 0xDEAD) == Resolved(None, 0xDEAD, None)
    assert at(table, 0xAB) == Resolved(None, 0xAB, None)
    table.close()


def test_child_closes_inherited_descriptors_and_ignores_signals() -> None:
    before = children()  # of other tests
    read, write = os.pipe()
    table = SymbolProcess(Table)
    os.close(write)
    assert os.read(read, 1) == b""  # it would block if the child had a copy of `write`
    (child,) = map(int, children() - before)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
    assert at(table, 0xAB) == Resolved("fab", 2, "/bin/work")
    table.close()
    os.close(read)
