"""Stacks: numbered at once, named by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.waiting import wait_for

from tracer.capture.symbols import stack_names
from tracer.capture.symbols.address_names import ExecImage, NamedStack, StackCopy
from tracer.capture.symbols.cpython_names import CodePlace, PythonStack
from tracer.capture.symbols.stack_names import NO_STACK, Stacks
from tracer.stored_names import NAMELESS_PYTHON
from tracer.wire.dtypes import WIRE


def records(*rows: dict[str, Any], stream: str = "code_sample") -> Any:
    made = np.zeros(len(rows), WIRE[stream])
    for record, row in zip(made, rows, strict=True):
        for name, value in row.items():
            if name in ("kernel", "user", "registers", "stack", "codes", "fingerprints", "offsets"):
                record[name][: len(value)] = value
            else:
                record[name] = value
    return made


class Users:
    """A `UserSymbols` whose names are process and address; it waits while `gate` is not set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[tuple[int, tuple[int, ...], ExecImage]] = []
        self.copies: list[StackCopy] = []
        self.closed = 0

    def name(self, tgid: int, addresses: Any, image: ExecImage, copy: StackCopy | None = None) -> NamedStack:
        self.gate.wait()
        if copy is not None:
            self.copies.append(copy)
            addresses = [*addresses, len(copy.stack)]
        self.asked.append((tgid, tuple(addresses), image))
        return NamedStack([f"{tgid}:{address}" for address in addresses], left_code=False)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
def sampled(users: Users) -> Iterator[Stacks]:
    made = Stacks(lambda addresses: [f"kernel:{address}" for address in addresses], users)  # type: ignore[arg-type]
    yield made
    users.gate.set()
    made.close()


def named(sampled: Stacks) -> dict[int, list[str]]:
    """Return all names, after the last one was found."""
    sampled.finish()
    return {row["stack_id"]: row["frames"] for row in sampled.take_rows()}


class Pythons:
    """A `PythonFrames` whose names are those of code objects; `asked` has the frames of each stack."""

    def __init__(self) -> None:
        self.asked: list[list[CodePlace]] = []

    def read(self, tgid: int, image: ExecImage, frames: list[CodePlace]) -> PythonStack:
        self.asked.append(frames)
        if tgid == 13:
            raise RuntimeError("the process is hostile")
        return PythonStack("python3", [f"f{code} [app.py:{offset}]" for code, _, offset in frames])

    def close(self) -> None:
        pass


def test_frames_of_python_are_read_before_symbol_tables_are_made(users: Users) -> None:
    """A process may end before the symbols of the stacks before it are found."""
    users.gate.clear()
    pythons = Pythons()
    sampled = Stacks(lambda _: [], users, pythons)  # type: ignore[arg-type]
    rows = [
        {"tgid": 1, "user": [5, 4]},
        {"tgid": 2, "user": [5], "codes": [70, 71], "fingerprints": [3, 4], "offsets": [8, 9]},
        {"tgid": 13, "user": [5], "codes": [70], "fingerprints": [3], "offsets": [8]},
    ]
    sampled.number(records(*rows))
    wait_for(lambda: pythons.asked == [[], [(70, 3, 8), (71, 4, 9)], [(70, 3, 8)]])
    assert not users.asked
    users.gate.set()
    names = named(sampled)
    assert sorted(names.values()) == [
        ["13:5", NAMELESS_PYTHON],
        ["1:5", "1:4"],
        ["2:5", "f70 [app.py:8]", "f71 [app.py:9]"],
    ]
    sampled.close()


def test_number_gives_each_sample_the_numbers_of_its_stacks(sampled: Stacks) -> None:
    kernel, user = sampled.number(
        records(
            {"tgid": 1, "kernel": [30, 20], "user": [5, 4]},
            {"tgid": 1, "kernel": [30], "user": [5, 4, 3]},
            {"tgid": 1, "kernel": [30, 20], "user": [5, 4]},
        )
    )
    names = named(sampled)
    assert [names[number] for number in kernel] == [
        ["kernel:30", "kernel:20"],
        ["kernel:30"],
        ["kernel:30", "kernel:20"],
    ]
    assert [names[number] for number in user] == [["1:5", "1:4"], ["1:5", "1:4", "1:3"], ["1:5", "1:4"]]
    assert len({*kernel, *user}) == len(names) == 4


def test_numbers_are_given_once(sampled: Stacks) -> None:
    """Stacks of kills have numbers from `next_number`."""
    kernel, user = sampled.number(records({"kernel": [1], "user": [1]}))
    assert sampled.next_number() > max(*kernel, *user)


def test_repeated_stack_keeps_its_number_and_is_named_once(sampled: Stacks, users: Users) -> None:
    first = sampled.number(records({"tgid": 1, "kernel": [30], "user": [5]}))
    again = sampled.number(records({"tgid": 1, "kernel": [30], "user": [5]}))
    assert [*map(list, first)] == [*map(list, again)]
    assert len(named(sampled)) == 2
    assert len(users.asked) == 1


@pytest.mark.parametrize("other", [{"tgid": 2}, {"start_code": 9}, {"start_stack": 9}])
def test_same_addresses_in_another_program_get_another_number(
    sampled: Stacks, users: Users, other: dict[str, int]
) -> None:
    one: dict[str, Any] = {"tgid": 1, "start_code": 8, "start_stack": 8, "kernel": [30], "user": [5]}
    kernel, user = sampled.number(records(one, one | other))
    assert kernel[0] == kernel[1]
    assert user[0] != user[1]
    sampled.finish()
    images = [(r["tgid"], (5,), ExecImage(r["start_code"], r["start_stack"])) for r in (one, one | other)]
    assert sorted(users.asked) == sorted(images)


def test_missing_stack_has_no_number(sampled: Stacks) -> None:
    kernel, user = sampled.number(records({"kernel": [30]}, {"user": [5]}))
    assert (kernel[1], user[0]) == (NO_STACK, NO_STACK)
    assert min(kernel[0], user[1]) > 0
    assert len(named(sampled)) == 2


def copies(*rows: dict[str, Any]) -> Any:
    return records(*rows, stream="stack_copy")


def test_sample_with_a_copy_of_its_stack_is_unwound(sampled: Stacks, users: Users) -> None:
    """The copy belongs to the sample of the same time and task."""
    sampled.take_copies(copies({"time_ns": 70, "tid": 4, "nr_bytes": 3, "stack": [9, 8, 7, 6]}))
    same = {"tgid": 1, "time_ns": 70, "user": [5]}
    _, (other, plain, unwound) = sampled.number(
        records(same | {"tid": 3}, same | {"tid": 4, "time_ns": 71}, same | {"tid": 4})
    )
    names = named(sampled)
    assert other == plain
    assert (names[plain], names[unwound]) == (["1:5"], ["1:5", "1:3"])
    assert [copied.stack for copied in users.copies] == [bytes([9, 8, 7])]


def test_same_copy_is_unwound_once(sampled: Stacks, users: Users) -> None:
    """Registers that say nothing about the place in the stack do not count."""
    place = {4: 40, 16: 160, 19: 190}  # bp, ip, sp in struct pt_regs
    numbers = []
    for time_ns, differs in enumerate([{}, {0: 9}, {4: 9}, {16: 9}, {19: 9}]):
        registers = [(place | differs).get(position, 0) for position in range(21)]
        row = {"time_ns": time_ns, "tid": 4}
        sampled.take_copies(copies(row | {"nr_bytes": 2, "stack": [1, 2], "registers": registers}))
        numbers.append(int(sampled.number(records(row | {"tgid": 1, "user": [5]}))[1][0]))
    sampled.finish()
    assert len(set(numbers)) == len(users.copies) == 4
    assert numbers[0] == numbers[1]


def test_copy_without_frame_pointers_has_the_address_of_the_instruction(
    sampled: Stacks, users: Users
) -> None:
    row = {"time_ns": 7, "tid": 4}
    sampled.take_copies(copies(row | {"nr_bytes": 1, "stack": [1], "registers": [0] * 16 + [0x77]}))
    (number,) = sampled.number(records(row | {"tgid": 1}))[1]
    assert named(sampled) == {number: [f"1:{0x77}", "1:1"]}


def test_copies_are_bounded_and_the_dropped_ones_counted(
    sampled: Stacks, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their samples have the frames by frame pointers."""
    monkeypatch.setattr(stack_names, "_MOST_COPIES", 2)
    rows: list[dict[str, Any]] = [{"time_ns": time_ns, "tid": 4} for time_ns in range(5)]
    sampled.take_copies(copies(*[row | {"nr_bytes": 1, "stack": [row["time_ns"]]} for row in rows]))
    assert sampled.dropped_copies == 3
    users.gate.clear()
    sampled.number(records(*[row | {"tgid": 1, "user": [5, row["time_ns"]]} for row in rows]))
    users.gate.set()
    sampled.finish()
    assert len(users.copies) + sampled.dropped_copies == len(rows)
    assert sampled.dropped_copies >= 3


def test_number_does_not_wait_for_names(sampled: Stacks, users: Users) -> None:
    users.gate.clear()
    sampled.number(records({"tgid": 1, "user": [5]}))
    assert sampled.take_rows() == []
    users.gate.set()
    assert list(named(sampled).values()) == [["1:5"]]


def test_user_stack_does_not_wait_for_the_table_of_the_kernel(users: Users) -> None:
    """Its process may be gone before the table is read."""
    gate = threading.Event()
    stacks = Stacks(lambda addresses: [str(gate.wait(30))] * len(addresses), users)  # type: ignore[arg-type]
    try:
        kernel, user = stacks.number(records({"tgid": 1, "kernel": [30], "user": [5]}))
        rows: list[dict[str, Any]] = []

        def has_come() -> list[dict[str, Any]]:
            rows.extend(stacks.take_rows())
            return rows

        wait_for(has_come)
        assert rows == [{"stack_id": user[0], "frames": ["1:5"], "left_code": False}]
        gate.set()
        assert named(stacks) == {kernel[0]: ["True"]}
    finally:
        gate.set()
        stacks.close()


def test_stack_that_waits_too_long_stays_bare_addresses(
    sampled: Stacks, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens at the end of the recording, and if too many stacks wait."""
    monkeypatch.setattr(stack_names, "_LAST_WAIT_S", 0.05)
    monkeypatch.setattr(stack_names, "_MOST_WAITING", 2)
    users.gate.clear()
    rows: list[dict[str, Any]] = [{"tgid": 1, "user": [number]} for number in range(10, 20)]
    numbers = [sampled.number(records(row))[1][0] for row in rows]
    late = named(sampled)
    users.gate.set()
    assert sampled.failed == len(rows)
    assert late == {
        number: [f"{address:#x}"] for number, address in zip(numbers, range(10, 20), strict=True)
    }, "also the one that the thread works on"
    sampled._of_users._thread.join()
    assert sampled.take_rows() == [], "it has one row"


def test_numbers_beyond_the_bound_are_forgotten_but_not_reused(
    sampled: Stacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_names, "_MOST_NUMBERED", 4)
    numbers = [int(sampled.number(records({"kernel": [address]}))[0][0]) for address in [*range(1, 10), 1]]
    assert len(set(numbers)) == len(numbers), "a number is never used again"
    assert len(sampled._numbers) <= 4
    names = named(sampled)
    assert names[numbers[0]] == names[numbers[-1]] == ["kernel:1"]


def test_close_ends_the_thread_and_frees_the_tables(users: Users) -> None:
    before = {*threading.enumerate()}
    made: Callable[..., Any] = Stacks
    one = made(lambda _: [], users)
    one.close()
    assert users.closed == 1
    assert not {*threading.enumerate()} - before


def test_stack_that_cannot_be_named_is_counted_and_skipped(
    sampled: Stacks, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = users.name

    def refuse(tgid: int, addresses: Any, image: ExecImage, _: object) -> NamedStack:
        if addresses == (5,):
            raise OverflowError
        return name(tgid, addresses, image)

    monkeypatch.setattr(users, "name", refuse)
    _, (failed,) = sampled.number(records({"tgid": 1, "user": [5]}))
    _, (fine,) = sampled.number(records({"tgid": 1, "user": [(1 << 64) - 1]}))
    assert named(sampled) == {failed: ["0x5"], fine: ["1:18446744073709551615"]}
    assert sampled.failed == 1


def test_symbol_tables_are_freed_when_no_stack_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a process of its own, and a flight recorder runs for years. The next stack gets new ones."""
    monkeypatch.setattr(stack_names, "TABLES_KEPT_S", 0.01)
    freed = threading.Event()
    users: Any = SimpleNamespace(name=lambda *_: NamedStack(["main"], left_code=False), close=freed.set)
    stacks = Stacks(lambda addresses: ["kernel"] * len(addresses), users)
    try:
        for number in (1, 2):
            freed.clear()
            stacks.name(number, 41, ExecImage(0, 0), [5])
            assert freed.wait(30)
            assert stacks.take_rows() == [{"stack_id": number, "frames": ["main"], "left_code": False}]
    finally:
        stacks.close()
