"""The signals by which users ask a running `watch` for a trace or for its cost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tracer.capture.loop import StopSignals, stop_signals


class Calls:
    """The SIGUSR1 and SIGUSR2 that came. Each wakes the loop through the descriptor of `stop`."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop
        self._come: list[int] = []

    @property
    def has_come(self) -> bool:
        """Return whether a signal came that `take` has not returned."""
        return bool(self._come)

    def receive(self, number: int, _frame: object) -> None:
        """Handle a signal."""
        if number not in self._come:
            self._come.append(number)
        self.stop.wake()

    def take(self) -> list[int]:
        """Return and forget the signals that came."""
        come, self._come = self._come, []
        return come


@contextmanager
def calls_of_users(*, ignores_hangup: bool = True) -> Iterator[Calls]:
    """Catch SIGUSR1, SIGUSR2 and the signals that end `watch`. SIGHUP ends it unless `ignores_hangup`."""
    before = signal.getsignal(signal.SIGHUP)
    if ignores_hangup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as stop:
        calls = Calls(stop)
        others = {number: signal.signal(number, calls.receive) for number in (signal.SIGUSR1, signal.SIGUSR2)}
        try:
            yield calls
        finally:
            for number, handler in others.items():
                signal.signal(number, handler)
    signal.signal(signal.SIGHUP, before)
