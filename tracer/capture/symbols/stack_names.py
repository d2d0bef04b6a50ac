"""Stacks: each gets a number at once, and its names later, from a thread.

A symbol table may take a second to read, and rings must be read meanwhile. Stacks of the kernel have a thread
of their own: a process may be gone before the kernel's table is read.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.ring import Records
from tracer.capture.symbols.address_names import ExecImage, NamedStack, StackCopy, UserSymbols
from tracer.capture.symbols.cpython_names import CodePlace, PythonFrames, PythonStack
from tracer.kernel.process.priority import prefer_this_thread
from tracer.stored_names import NAMELESS_PYTHON

NO_STACK: Final = -1
"""The number of a missing stack."""

TABLES_KEPT_S: Final = 20.0
"""The time without a stack after which symbol tables are freed: each takes a process."""
_MOST_WAITING: Final = 4096
_MOST_COPIES: Final = 512  # that wait for their sample, or for being unwound: 8 MiB
_MOST_NUMBERED: Final = 1 << 16
_LAST_WAIT_S: Final = 3.0

_BP, _IP, _SP = 4, 16, 19  # positions in struct pt_regs of x86-64
_PLACE: Final = (_BP, _IP, _SP)
_USER_KEY: Final = ("tgid", "start_code", "start_stack", "codes", "fingerprints", "offsets", "user")


@dataclass(frozen=True)
class _Stack:
    """`image` is None for a kernel stack. `python` are the names of the frames of Python, as soon as they are
    read. `copy` is what the stack can be unwound from; else `addresses` are all that is known."""

    number: int
    addresses: tuple[int, ...]
    tgid: int
    image: ExecImage | None
    python: Future[PythonStack] | None = None
    copy: StackCopy | None = None


class _PythonReader:
    """A thread that reads the names of frames of Python.

    They are in the memory of the process, which may end at any moment, and are read in a millisecond. The
    symbol tables of stacks that wait before it may take a second.
    """

    def __init__(self, frames: PythonFrames) -> None:
        self._frames = frames
        self._waiting: queue.SimpleQueue[tuple[Future[PythonStack], Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read_all, name="python", daemon=True)
        self._thread.start()

    def read(self, tgid: int, image: ExecImage, frames: Sequence[CodePlace]) -> Future[PythonStack]:
        """Read the names of frames soon, unless too many wait. Without frames, the process is looked at all
        the same, so that those of its next samples are taken."""
        found: Future[PythonStack] = Future()
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put((found, (tgid, image, frames)))
        else:
            found.set_result(_nameless(frames))
        return found

    def abandon(self) -> None:
        """Forget what waits, and end the thread."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self.end()

    def end(self) -> None:
        """Read what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join(_LAST_WAIT_S)

    def _read_all(self) -> None:
        prefer_this_thread()
        while (asked := self._waiting.get()) is not None:
            found, arguments = asked
            try:
                found.set_result(self._frames.read(*arguments))
            except Exception:  # no process may end the thread
                found.set_result(_nameless(arguments[2]))


def _nameless(frames: Sequence[CodePlace]) -> PythonStack:
    return PythonStack(None, [NAMELESS_PYTHON] * len(frames))


class _Namer:
    """A thread that names stacks in the order in which they come, and appends their rows to `named`.

    `names` returns the names of a stack. The thread calls `rest` if none comes for a while, and `close` at
    its end. `failed` counts the stacks whose frames stay bare addresses.
    """

    def __init__(
        self,
        names: Callable[[_Stack], NamedStack],
        named: deque[dict[str, Any]],
        *,
        rest: Callable[[], None] = lambda: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.failed = 0
        self._names = names
        self._rest = rest
        self._close = close
        self._named = named
        self._waiting: queue.SimpleQueue[_Stack | None] = queue.SimpleQueue()
        self._being_named: deque[_Stack] = deque()  # one at most; who takes it out writes its row
        self.has_stacks = False
        self._thread = threading.Thread(target=self._name_all, name="symbols", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return the number of stacks that wait."""
        return self._waiting.qsize()

    def put(self, stack: _Stack) -> None:
        """Name a stack soon, unless too many wait."""
        self.has_stacks = True
        if self.waiting < _MOST_WAITING:
            self._waiting.put(stack)
        else:
            self._fail(stack)

    def end(self) -> None:
        """Let the thread end when it has named the stacks that wait."""
        self._waiting.put(None)

    def join(self, within_s: float) -> None:
        """Wait for the thread after `end`; stacks that still wait after so long stay bare addresses."""
        self._thread.join(within_s)
        if not self._thread.is_alive():
            return
        with suppress(queue.Empty):
            while (stack := self._waiting.get_nowait()) is not None:
                self._fail(stack)
        with suppress(IndexError):
            self._fail(self._being_named.pop())
        self.end()  # again: that end was taken out

    def abandon(self) -> None:
        """Forget the stacks that wait, and end the thread."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self.end()
        self._thread.join(_LAST_WAIT_S)

    def _name_all(self) -> None:
        prefer_this_thread()  # a thread that waits for a CPU while it holds the GIL stops the recorder
        try:
            while (stack := self._next()) is not None:
                self._name_one(stack)
        finally:
            self._close()

    def _next(self) -> _Stack | None:
        try:
            return self._waiting.get(timeout=TABLES_KEPT_S)
        except queue.Empty:
            self._rest()
            return self._waiting.get()

    def _name_one(self, stack: _Stack) -> None:
        """Name a stack. No stack and no file of a process may end the thread."""
        self._being_named.append(stack)
        try:
            names = self._names(stack)
        except Exception:
            names = None
        try:
            self._being_named.pop()
        except IndexError:  # it was late, and has a row
            return
        if names is None:
            self._fail(stack)
        else:
            self._named.append(_row(stack, names))

    def _fail(self, stack: _Stack) -> None:
        self.failed += 1
        self._named.append(_row(stack, NamedStack([f"{one:#x}" for one in stack.addresses], False)))


@dataclass
class Stacks:
    """Numbers and names stacks.

    `name_kernel` names the addresses of a kernel stack; `users` names addresses of processes, and `python`
    the frames of CPython. Both are closed together with this object. A sampled stack that occurs again keeps
    its number, and is named once. `dropped_copies` counts the samples whose stacks are not unwound, because
    too many copies of stacks wait.
    """

    name_kernel: Callable[[list[int]], list[str]]
    users: UserSymbols
    python: PythonFrames | None = None
    dropped_copies: int = 0
    _copies: OrderedDict[tuple[int, int], StackCopy] = field(default_factory=OrderedDict)
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _last_number: int = 0
    _named: deque[dict[str, Any]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._of_users = _Namer(self._user_names, self._named, rest=self._rest, close=self.users.close)
        self._of_kernel = _Namer(self._kernel_names, self._named)
        self._of_python = None if self.python is None else _PythonReader(self.python)

    @property
    def failed(self) -> int:
        """Return how many stacks stay bare addresses: there was no time to name them, or naming failed."""
        return self._of_users.failed + self._of_kernel.failed

    @property
    def has_tables(self) -> bool:
        """Return whether symbol tables of processes are kept, which are freed after `TABLES_KEPT_S`."""
        return self.users.has_tables

    @property
    def has_kernel_stacks(self) -> bool:
        """Return whether a stack of the kernel has come."""
        return self._of_kernel.has_stacks

    def take_copies(self, records: Records) -> None:
        """Keep copies of user stacks until the samples come to which they belong."""
        for record in records:
            copied = StackCopy(record["registers"].tobytes(), record["stack"][: record["nr_bytes"]].tobytes())
            self._copies[int(record["time_ns"]), int(record["tid"])] = copied
        while len(self._copies) > _MOST_COPIES:
            self._copies.popitem(last=False)
            self.dropped_copies += 1

    def number(self, records: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the numbers of the samples' kernel stacks and user stacks; `NO_STACK` for a missing one."""
        keys = zip(records["time_ns"].tolist(), records["tid"].tolist(), strict=True)
        copies = [self._copies.pop(key, None) for key in keys]
        is_plain = np.array([copied is None for copied in copies], bool)
        users = np.empty(len(records), np.int64)
        users[is_plain] = self._number(records[is_plain], _USER_KEY)
        for position in np.flatnonzero(~is_plain).tolist():
            copied = copies[position]
            assert copied is not None
            users[position] = self._number_of_copy(records[position], copied)
        return self._number(records, ("kernel",)), users

    def _number(self, records: Records, fields: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Return the numbers of the stacks in `fields`; the work is done once for each distinct stack."""
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

    def _number_of_copy(self, record: np.void, copied: StackCopy) -> int:
        """Return the number of a stack that has a copy. The same copy is unwound once: of the registers, only
        those count that say where in the stack the task is."""
        digest = blake2b(copied.stack, digest_size=16)
        for name in _USER_KEY:
            digest.update(record[name].tobytes())
        words = np.frombuffer(copied.registers, np.uint64)
        digest.update(words[[*_PLACE]].tobytes())
        frames = tuple(np.trim_zeros(record["user"], "b").tolist()) or (int(words[_IP]),)
        return self._number_of(digest.digest(), frames, record, True, copied)

    def _number_of(
        self,
        key: bytes,
        frames: tuple[int, ...],
        record: np.void,
        is_user: bool,
        copied: StackCopy | None = None,
    ) -> int:
        if (number := self._numbers.get(key)) is not None:
            return number
        if (
            len(self._numbers) >= _MOST_NUMBERED
        ):  # if the stack occurs again, it gets a new number and is named again
            self._numbers.clear()
        number = self._numbers[key] = self.next_number()
        image = ExecImage(int(record["start_code"]), int(record["start_stack"])) if is_user else None
        python = None
        if image is not None and self._of_python is not None:
            codes = np.trim_zeros(record["codes"], "b").tolist()
            places = zip(codes, record["fingerprints"].tolist(), record["offsets"].tolist(), strict=False)
            called = [CodePlace(*place) for place in places]
            python = self._of_python.read(int(record["tgid"]), image, called)
        if copied is not None and self._of_users.waiting >= _MOST_COPIES:
            copied = None
            self.dropped_copies += 1
        self._queue(_Stack(number, frames, int(record["tgid"]), image, python, copied))
        return number

    def next_number(self) -> int:
        """Return the number of another stack."""
        self._last_number += 1
        return self._last_number

    def name(self, number: int, tgid: int, image: ExecImage | None, addresses: Sequence[int]) -> None:
        """Queue a stack to be named; `image` is None for a kernel stack."""
        self._queue(_Stack(number, tuple(addresses), tgid, image))

    def _queue(self, stack: _Stack) -> None:
        (self._of_kernel if stack.image is None else self._of_users).put(stack)

    def take_rows(self) -> list[dict[str, Any]]:
        """Return rows of `stacks`, for the stacks that were named since the last call."""
        return [self._named.popleft() for _ in range(len(self._named))]

    def finish(self) -> None:
        """Name the waiting stacks; those that still wait after three seconds stay bare addresses."""
        until_s = time.monotonic() + _LAST_WAIT_S
        for namer in (self._of_kernel, self._of_users):
            namer.end()
        if self._of_python is not None:
            self._of_python.end()
        for namer in (self._of_kernel, self._of_users):
            namer.join(max(until_s - time.monotonic(), 0.0))

    def close(self) -> None:
        """Stop naming at once, and free the symbol tables."""
        self._of_kernel.abandon()
        self._of_users.abandon()
        if self.python is not None and self._of_python is not None:
            self._of_python.abandon()
            self.python.close()

    def _rest(self) -> None:
        self.users.close()
        if self.python is not None:
            self.python.free_ended()

    def _kernel_names(self, stack: _Stack) -> NamedStack:
        return NamedStack(self.name_kernel(list(stack.addresses)), left_code=False)

    def _user_names(self, stack: _Stack) -> NamedStack:
        assert stack.image is not None
        named = self.users.name(stack.tgid, stack.addresses, stack.image, stack.copy)
        if stack.python is None:
            return named
        return named._replace(frames=stack.python.result(_LAST_WAIT_S).above(named.frames))


def _firsts(member_of: npt.NDArray[np.intp], groups: int) -> npt.NDArray[np.intp]:
    firsts = np.empty(groups, np.intp)
    firsts[member_of[::-1]] = np.arange(len(member_of))[::-1]
    return firsts


def _row(stack: _Stack, named: NamedStack) -> dict[str, Any]:
    return {"stack_id": stack.number, **named._asdict()}
