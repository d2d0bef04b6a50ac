"""A child that does one piece of work at a time, of a function of ours, and is given up if it takes too long.

A parent with other work asks, goes on, and takes the answers when they are there. A parent without other work
waits for them (`answered`). A child that blocks in the kernel blocks neither for long.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NoReturn

from tracer.kernel.process.children import end_child, end_with_parent
from tracer.kernel.process.priority import prefer_this_thread

MESSAGE_BYTES: Final = 1 << 17
"""The longest answer, as JSON."""

Work = Callable[[Any], Iterable[dict[str, Any]]]


class AskedChild:
    """A child that calls `work` for each request, until `close`. Requests and answers are JSON documents.

    `is_urgent`: the child gets more of a busy CPU. `cpu_s`: the CPU time of the last piece of work, without
    that of the child's children.
    """

    def __init__(self, work: Work, *, within_s: float, is_urgent: bool) -> None:
        self._within_s = within_s
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _serve(theirs.fileno(), work, is_urgent=is_urgent)
        theirs.close()
        self._socket.setblocking(False)
        self._asked_s: float | None = None
        self._has_ended = False
        self.cpu_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Return whether the child is at work."""
        return self._asked_s is not None

    @property
    def has_failed(self) -> bool:
        """Return whether the work takes longer than `within_s`, or the child has ended."""
        is_late = self._asked_s is not None and time.monotonic() - self._asked_s > self._within_s
        return is_late or self._has_ended

    def ask(self, request: Any) -> None:
        """Begin a piece of work."""
        self._asked_s = time.monotonic()
        with suppress(OSError):  # the child has ended, as reading from it shows
            self._socket.send(json.dumps(request).encode())

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield the answers that came since the last call."""
        with suppress(BlockingIOError):
            while message := self._receive():
                answer = json.loads(message)
                if "cpu_s" in answer:
                    self._asked_s, self.cpu_s = None, answer["cpu_s"]
                    return
                yield answer
            self._has_ended = True

    def _receive(self) -> bytes:
        """Return the next message; b"" if the child has ended. Raises BlockingIOError if there is none."""
        try:
            return self._socket.recv(MESSAGE_BYTES)
        except ConnectionError:
            return b""

    def wait(self, within_s: float) -> None:
        """Wait until there is an answer, at most so long."""
        self._socket.settimeout(max(within_s, 0.001))
        with suppress(OSError):
            self._socket.recv(1, socket.MSG_PEEK)
        self._socket.setblocking(False)

    def answered(self, request: Any) -> list[dict[str, Any]] | None:
        """Begin a piece of work, wait for its end, and return its answers; None if it has failed."""
        self.ask(request)
        until_s = time.monotonic() + self._within_s
        answers: list[dict[str, Any]] = []
        while self.is_busy and not self.has_failed:
            self.wait(until_s - time.monotonic())
            answers += self.answers()
        return None if self.is_busy else answers

    def close(self) -> None:
        """End the child."""
        end_child(self._child, self._socket, is_idle=not self.is_busy)


def _serve(fd: int, work: Work, *, is_urgent: bool) -> NoReturn:
    """Serve requests in the child, which keeps no descriptor of its parent and ends with it."""
    try:
        end_with_parent()
        if is_urgent:
            prefer_this_thread()
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
        os.dup2(fd, 3)
        os.closerange(0, 3)
        os.closerange(4, last + 1)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        with socket.socket(fileno=3) as ours:
            while request := ours.recv(MESSAGE_BYTES):
                begin_s = time.process_time()
                for answer in work(json.loads(request)):
                    ours.send(json.dumps(answer).encode())
                ours.send(json.dumps({"cpu_s": time.process_time() - begin_s}).encode())
    finally:
        os._exit(0)
