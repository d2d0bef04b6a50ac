"""Copies of finished traces to a URL, made by one child at a time beside the recording loop."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tracer.kernel.process.children import argv_of_module, environment_of_modules
from tracer.urls import shown_url
from tracer.watch.child import Child

COPYING_WITHIN_S: Final = 1800.0
"""The time after which a child is killed. The next child continues with the same file."""

AGAIN_AFTER_S: Final = (30.0, 60.0, 120.0, 300.0, 600.0)
"""The times between attempts while the URL cannot be used; the last one is repeated."""

_LATER_S: Final = 70.0  # more than tracer.fleet.pushing.finished.SETTLED_S
_MOST_NAMES: Final = 1000
_COPYING: Final = argv_of_module("tracer.watch.copying_child")


class Copying:
    """Copies the traces of `spool` to `url`. Without a URL, nothing is copied.

    The first child checks all traces, because an earlier `watch` may have left some. `notice` is called with
    a line for each copied trace, and `warn` with a line for each problem.

    For an event loop: call `step`, which never blocks, now and then, unless `due_s` is infinite.
    """

    def __init__(
        self,
        spool: Path,
        url: str | None,
        notice: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        copying: tuple[str, ...] = _COPYING,
        within_s: float = COPYING_WITHIN_S,
        again_after_s: Sequence[float] = AGAIN_AFTER_S,
    ) -> None:
        self._spool = spool
        self._url = url
        self._shown = shown_url(url or "")
        self._notice = notice
        self._warn = warn
        self._copying = copying
        self._within_s = within_s
        self._again_after_s = again_after_s
        self._is_all = True  # the next child checks all traces
        self._wanted: set[str] = set()
        self._fresh: set[str] = set()  # the wanted traces that were finished since the last child began
        self._at_url: set[str] = set()
        self._child: Child | None = None
        self._next_s = math.inf if url is None else 0.0
        self._failed = 0  # failed attempts in a row
        self._removed = 0

    @property
    def due_s(self) -> float:
        """Return the time on CLOCK_MONOTONIC at which `step` must be called; infinite: there is no work."""
        return self._next_s if self._child is None else self._child.due_s

    def add(self, trace: Path) -> None:
        if self._url is not None:
            self._wanted.add(trace.name)
            self._fresh.add(trace.name)
            if not self._failed:
                self._next_s = 0.0

    def removed(self, traces: Iterable[Path]) -> None:
        """Count removed traces of the spool that were not seen at the URL, and warn of them."""
        if self._url is None:
            return
        names = {trace.name for trace in traces}
        lost = len(names - self._at_url)
        self._at_url -= names
        self._wanted -= names
        if lost:
            self._removed += lost
            self._warn(
                f"{_traces(lost)} removed before being seen at {self._shown} ({self._removed} so far): "
                "give more --max-disk or --keep-traces"
            )

    def step(self, now_s: float) -> None:
        """Do what can be done without waiting; `now_s` is CLOCK_MONOTONIC."""
        if self._child is None:
            if self._next_s <= now_s:
                self._begin()
            return
        status = self._child.poll(now_s)
        if status is not None:
            child, self._child = self._child, None
            self._end(child, status, now_s)

    def finish(self, deadline_s: float) -> None:
        """Copy what is left until `deadline_s` (CLOCK_MONOTONIC), for the end of `watch`."""
        if self._next_s < math.inf:
            self._next_s = 0.0  # one more attempt, even if the URL could not be used
        attempts = self._failed
        while self.due_s < math.inf and self._failed == attempts:
            now_s = time.monotonic()
            if now_s >= deadline_s or (self._child is None and self._next_s > now_s):
                break
            self.step(now_s)
            if self._child is not None:
                self._child.wait(deadline_s)
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._url is not None and (self._wanted or self._is_all):
            left = "some traces" if self._is_all else _traces(len(self._wanted))
            self._warn(f"{left} may not be at {self._shown} yet: the next start copies what is missing")
        self._next_s = math.inf

    def _begin(self) -> None:
        assert self._url is not None
        if len(self._wanted) > _MOST_NAMES:
            self._is_all = True
        self._fresh.clear()
        names = [] if self._is_all else sorted(self._wanted)
        argv = (*self._copying, str(self._spool), self._url, *names)
        try:
            self._child = Child(argv, environment_of_modules(), self._within_s, subprocess.PIPE)
        except OSError as error:
            self._fail(f"no process can be started ({error.strerror})", time.monotonic())

    def _end(self, child: Child, status: int, now_s: float) -> None:
        """Handle the output of the child: an array for each trace, then an object with its error."""
        end = None
        for line in bytes(child.output).splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                end = told
            elif isinstance(told, list) and len(told) == 3:
                self._take(*told)
        error = f"its process {child.how_it_ended(status)}" if end is None else end.get("error")
        if error is not None:
            self._fail(str(error), now_s)
            return
        if self._failed:
            self._failed = 0
            self._notice(f"traces are copied to {self._shown} again")
        self._is_all = False
        self._wanted = {name for name in self._wanted if (self._spool / name).exists()}
        if not self._wanted:
            self._next_s = math.inf
        else:  # the traces that the child did not copy must settle first
            self._next_s = now_s if self._wanted & self._fresh else now_s + _LATER_S

    def _take(self, state: Any, name: Any, words: Any) -> None:
        if state == "later":
            self._wanted.add(name)
            return
        self._wanted.discard(name)
        if state == "failed":
            self._warn(f"{name} is not copied: {words}")
            return
        self._at_url.add(name)
        if state == "pushed":
            self._notice(f"copied to {words}")

    def _fail(self, error: str, now_s: float) -> None:
        if not self._failed:
            self._warn(f"traces are not copied to {self._shown}: {error}; it is tried again")
        self._next_s = now_s + self._again_after_s[min(self._failed, len(self._again_after_s) - 1)]
        self._failed += 1


def _traces(count: int) -> str:
    return f"{count} trace{'s' * (count != 1)}"
