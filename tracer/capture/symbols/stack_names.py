"""Stacks: each one has a number at once, and its names soon, by a thread of its own.

Names are looked up aside because a table of symbols can take a second to read, and rings do not wait.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.ring import Records
from tracer.capture.symbols.address_names import Program, UserSymbols
from tracer.kernel.process.priority import prefer_this_thread

NO_STACK: Final = -1
"""Stands for the number of a stack that could not be taken."""

_FIRST_NUMBER: Final = 1 << 16  # below are the stacks of those who triggered a kill, numbered by their map
_MOST_WAITING: Final = 4096
_MOST_NUMBERED: Final = 1 << 16
_LAST_WAIT_S: Final = 3.0

_USER_KEY: Final = ("tgid", "start_code", "start_stack", "user")


@dataclass(frozen=True)
class _Stack:
    """`program` is None for a stack in the kernel."""

    number: int
    addresses: tuple[int, ...]
    tgid: int
    program: Program | None


@dataclass
class Stacks:
    """`name_kernel` names the addresses of a kernel stack; `users`, which is closed with this, those of
    processes.

    A sampled stack that comes again has the number that it has, and is named but once. `failed` counts the
    stacks that stay bare addresses because there was no time to name them, or because naming them failed.
    """

    name_kernel: Callable[[list[int]], list[str]]
    users: UserSymbols
    failed: int = 0
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _last_number: int = _FIRST_NUMBER - 1
    _waiting: queue.SimpleQueue[_Stack | None] = field(default_factory=queue.SimpleQueue)
    _named: deque[dict[str, Any]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._name_all, name="symbols", daemon=True)
        self._thread.start()

    def number(self, records: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The numbers of the kernel stacks and of the user stacks of samples; `NO_STACK`: there is none."""
        return self._number(records, ("kernel",)), self._number(records, _USER_KEY)

    def _number(self, records: Records, fields: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Each stack is looked at once, however many samples are of it."""
        addresses = fields[-1]
        dtype = np.dtype([(name, records.dtype[name]) for name in fields])
        keys = np.empty(len(records), dtype)
        for name in fields:
            keys[name] = records[name]
        stacks, stack_of = np.unique(keys.view(f"S{dtype.itemsize}"), return_inverse=True)
        numbers = np.empty(len(stacks), np.int64)
        for position, first in enumerate(_firsts(stack_of, len(stacks))):
            frames = tuple(np.trim_zeros(records[first][addresses], "b").tolist())
            key = blake2b(keys[first].tobytes(), digest_size=16).digest()
            is_user = addresses == "user"
            numbers[position] = self._number_of(key, frames, records[first], is_user) if frames else NO_STACK
        return numbers[stack_of]

    def _number_of(self, key: bytes, frames: tuple[int, ...], record: np.void, is_user: bool) -> int:
        if (number := self._numbers.get(key)) is not None:
            return number
        if len(self._numbers) >= _MOST_NUMBERED:  # what comes again is another then, and named again
            self._numbers.clear()
        self._last_number += 1
        self._numbers[key] = self._last_number
        program = Program(int(record["start_code"]), int(record["start_stack"])) if is_user else None
        self.name(self._last_number, int(record["tgid"]), program, frames)
        return self._last_number

    def name(self, number: int, tgid: int, program: Program | None, addresses: Sequence[int]) -> None:
        """Have a stack of this number named; without a `program` it is one in the kernel."""
        stack = _Stack(number, tuple(addresses), tgid, program)
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(stack)
        else:
            self._fail(stack)

    def take_rows(self) -> list[dict[str, Any]]:
        """Rows of `stacks`: those that were named since the last call."""
        return [self._named.popleft() for _ in range(len(self._named))]

    def finish(self) -> None:
        """Name what waits; what still does after a few seconds stays without names."""
        self._waiting.put(None)
        self._thread.join(_LAST_WAIT_S)
        self.failed += self._thread.is_alive()  # with the stack that it has in hand
        with suppress(queue.Empty):
            while (stack := self._waiting.get_nowait()) is not None:
                self._fail(stack)

    def close(self) -> None:
        """Stop at once, and free the tables of symbols."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(_LAST_WAIT_S)

    def _name_all(self) -> None:
        prefer_this_thread()  # while it waits for a CPU with Python's lock, nothing is recorded
        try:
            while (stack := self._waiting.get()) is not None:
                self._name_one(stack)
        finally:
            self.users.close()

    def _name_one(self, stack: _Stack) -> None:
        """Whatever a process may have made of its stack and its files ends no thread of ours."""
        try:
            self._named.append(_row(stack, self._names(stack)))
        except Exception:
            self._fail(stack)

    def _fail(self, stack: _Stack) -> None:
        self.failed += 1
        self._named.append(_row(stack, [f"{address:#x}" for address in stack.addresses]))

    def _names(self, stack: _Stack) -> list[str]:
        if stack.program is None:
            return self.name_kernel(list(stack.addresses))
        return self.users.frames(stack.tgid, stack.addresses, stack.program)


def _firsts(member_of: npt.NDArray[np.intp], groups: int) -> npt.NDArray[np.intp]:
    """The first position of each group."""
    firsts = np.empty(groups, np.intp)
    firsts[member_of[::-1]] = np.arange(len(member_of))[::-1]
    return firsts


def _row(stack: _Stack, frames: list[str]) -> dict[str, Any]:
    return {"stack_id": stack.number, "frames": frames}
