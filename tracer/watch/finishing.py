"""The end of a story: its trace is completed and explained, then a command gets the trace's path.

Both are done by children, one at a time, beside the loop that records.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tracer
from tracer.kernel.process.small_pages import huge_pages_for_children

COMPLETING_WITHIN_S: Final = 300.0  # 2 min were too short in an emulated machine at a load of 10
HURRIES_AFTER_S: Final = 30.0
"""After this time, a child that completes gets normal priority: a busy CPU leaves it a hundredth before."""
COMMAND_WITHIN_S: Final = 60.0
AGAIN_AFTER_S: Final = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""The times between attempts to complete a trace, which fail on a full disk; the next start tries again."""
MOST_WAITING: Final = 64
"""The most traces that wait: what is in use is not removed, so the disk would fill."""

_TOP: Final = Path(tracer.__file__).parents[1]
_COMPLETING: Final = (sys.executable, "-P", "-m", "tracer.watch.completing")
_POLL_S: Final = 0.2  # without pidfd_open(2), before 32fcb426ec00 ("pid: add pidfd_open()", v5.3)
_STDERR: Final = 2
_MOST_BYTES: Final = 1 << 20
_OF_THE_SERVICE: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


@dataclass(frozen=True)
class Told:
    """A trace whose story is over. `time_ns` is CLOCK_REALTIME at the trigger, `cgroup` a path.

    `kills` is the number of OOM decisions of the story; None: those in the trace. `sentence` is what a story
    without a kill is about, and safe to print; None: the trace will show it. Names are as they are in the
    trace: any user can choose them.
    """

    trace: Path
    reason: str
    time_ns: int
    cgroup: str | None
    kills: int | None
    container: str | None = None
    sentence: str | None = None


@dataclass(frozen=True)
class Finished(Told):
    """A trace that is completed and explained, or else the `error`: it is readable even so.

    `cause` and `pod` are of the newest kill, and so are the sentence and names then.
    """

    cause: str | None = None
    pod: str | None = None
    error: str | None = None


class _Child:
    """A child in a session of its own, without input; it is killed with its process group at
    `deadline_s`."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], within_s: float, output: int):
        self.within_s = within_s
        self.was_late = False
        self.hurries_s = math.inf
        self.output = bytearray()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True, env=environment
        )
        self._pipe = -1
        if self._process.stdout is not None:
            self._pipe = os.dup(self._process.stdout.fileno())
            self._process.stdout.close()
            os.set_blocking(self._pipe, False)
        self._pidfd = -1
        with suppress(OSError):
            self._pidfd = os.pidfd_open(self._process.pid)
        self._polled_s = time.monotonic()
        self.deadline_s = self._polled_s + within_s

    @property
    def descriptors(self) -> list[int]:
        """Return the descriptors that become readable when there is something to do."""
        return [descriptor for descriptor in (self._pidfd, self._pipe) if descriptor >= 0]

    @property
    def due_s(self) -> float:
        """Return the time at which `poll` must be called, on CLOCK_MONOTONIC."""
        polled_s = math.inf if self._pidfd >= 0 else self._polled_s + _POLL_S
        return min(self.deadline_s, self.hurries_s, polled_s)

    def poll(self, now_s: float) -> int | None:
        """Read the output; return the exit status once the child has ended, -N for signal N."""
        self._polled_s = now_s
        status = self._process.poll()
        self._read()
        if status is not None:
            self._close()
        elif now_s >= self.deadline_s:
            self.was_late = True
            self.kill()
            self.deadline_s = now_s + 1
        elif now_s >= self.hurries_s:
            self.hurries_s = math.inf
            with suppress(OSError):  # it may not be permitted
                os.setpriority(os.PRIO_PGRP, self._process.pid, 0)
        return status

    def how_it_ended(self, status: int) -> str:
        """Return the words for the exit status that `poll` gave."""
        if status < 0:
            late = f"took longer than {self.within_s:.0f} s and was killed"
            return late if self.was_late else f"was ended by signal {-status}"
        return f"ended with exit status {status}"

    def kill(self) -> None:
        """Kill the child, which is not waited for yet, and its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the child and wait a second at most: one that waits for a disk cannot end."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._close()

    def _read(self) -> None:
        while self._pipe >= 0:
            try:
                read = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not read:
                os.close(self._pipe)
                self._pipe = -1
            elif len(self.output) < _MOST_BYTES:
                self.output += read

    def _close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self._pipe = self._pidfd = -1


class Finishing:
    """A queue of traces to complete; `told` is called for each one that is done, then `command` is run.

    The command gets the trace's path as its last argument, without a shell. Its output goes to our stderr. It
    may run for `COMMAND_WITHIN_S`, and `warn` is called with a line if it fails. A child that completes may
    run for `COMPLETING_WITHIN_S`.

    For an event loop: call `step` when a descriptor of `fds` is readable and at `due_s`. It never blocks.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        told: Callable[[Finished], None],
        warn: Callable[[str], None],
        *,
        completing: tuple[str, ...] = _COMPLETING,
        completing_within_s: float = COMPLETING_WITHIN_S,
        hurries_after_s: float = HURRIES_AFTER_S,
        command_within_s: float = COMMAND_WITHIN_S,
        again_after_s: Sequence[float] = AGAIN_AFTER_S,
    ) -> None:
        self._command = command
        self._told = told
        self._warn = warn
        self._completing = completing
        self._completing_within_s = completing_within_s
        self._hurries_after_s = hurries_after_s
        self._command_within_s = command_within_s
        self._waiting: deque[Told] = deque()
        self._story: Told | None = None  # the one that is worked on
        self._child: _Child | None = None
        self._is_told = False  # the command runs
        self._again_after_s = again_after_s
        self._again: deque[tuple[float, int, Told]] = deque()  # (time of the next attempt, number, story)
        self._attempt = 0  # of the one that is worked on; from the second on, it was told

    @property
    def in_use(self) -> frozenset[Path]:
        """Return the traces that wait or are worked on, without those that wait for another attempt."""
        stories = [*self._waiting, *([] if self._story is None else [self._story])]
        return frozenset(story.trace for story in stories)

    @property
    def due_s(self) -> float:
        """Return the time on CLOCK_MONOTONIC at which `step` must be called; infinite if there is nothing to
        do."""
        if self._child is not None:
            return self._child.due_s
        return 0.0 if self._waiting else min((due_s for due_s, *_ in self._again), default=math.inf)

    def fds(self) -> list[int]:
        """Return the descriptors that become readable when `step` has something to do; they change with each
        `step`."""
        return [] if self._child is None else self._child.descriptors

    def add(self, story: Told) -> None:
        """Put a trace at the end of the queue; one that is in it already is not added again."""
        if story.trace in self.in_use:
            return
        if len(self._waiting) == MOST_WAITING:
            self._tell(self._waiting.popleft(), error="not completed: too many traces wait for that")
        self._waiting.append(story)

    def step(self, now_s: float) -> None:
        """Do what can be done without waiting; `now_s` is CLOCK_MONOTONIC."""
        while self._child is not None or self.due_s <= now_s:
            if self._child is None:
                self._begin(now_s)
                continue
            status = self._child.poll(now_s)
            if status is None:
                return
            child, self._child = self._child, None
            if self._is_told:
                self._end_command(child, status)
            else:
                self._end_completing(child, status)

    def finish(self, deadline_s: float) -> None:
        """Work off the queue until `deadline_s` (CLOCK_MONOTONIC), for the end of `watch`.

        What is not done then is left for the next start: it is told with an error, and its command is not
        run.
        """
        while (now_s := time.monotonic()) < deadline_s:
            self.step(now_s)
            if self._child is None and not self._waiting:
                return
            poll = select.poll()
            for descriptor in self.fds():
                poll.register(descriptor, select.POLLIN)
            until_s = min(self.due_s, deadline_s) - time.monotonic()
            poll.poll(max(0, math.ceil(until_s * 1000)))
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._is_told and self._story is not None:
            self._warn(f"{self._command[0]!a} was killed at the end of watch, for {self._story.trace}")
            self._story = None
        left = [*([] if self._story is None else [self._story]), *self._waiting]
        self._story, self._is_told = None, False
        self._waiting.clear()
        for story in left:
            self._tell(story, error="not completed: watch ended, and the next start completes it")

    # Completion

    def _begin(self, now_s: float) -> None:
        """Start to complete the next trace, or one for which the time of another attempt has come."""
        if self._waiting:
            self._attempt, self._story = 0, self._waiting.popleft()
        else:
            due = next(one for one in self._again if one[0] <= now_s)
            self._again.remove(due)
            _, self._attempt, self._story = due
        self._is_told = False
        path = os.pathsep.join(filter(None, (str(_TOP), os.environ.get("PYTHONPATH"))))
        argv = (*self._completing, str(self._story.trace))
        try:
            self._child = _Child(
                argv, {**os.environ, "PYTHONPATH": path}, self._completing_within_s, subprocess.PIPE
            )
            self._child.hurries_s = time.monotonic() + self._hurries_after_s
        except OSError as error:
            self._end_story({"error": f"not completed: no process can be started ({error.strerror})"})

    def _end_completing(self, child: _Child, status: int) -> None:
        try:
            answer = json.loads(child.output)
            if not isinstance(answer, dict):
                raise ValueError
        except ValueError:
            answer = {
                "error": f"not completed: its process {child.how_it_ended(status)}",
                "is_complete": False,
            }
        if answer.get("is_complete") is False and self._attempt < len(self._again_after_s):
            assert self._story is not None
            due_s = time.monotonic() + self._again_after_s[self._attempt]
            if self._story.trace.exists() and len(self._again) < MOST_WAITING:
                self._again.append((due_s, self._attempt + 1, self._story))
        self._end_story(answer)

    def _end_story(self, answer: dict[str, Any]) -> None:
        """Tell that a trace is done, and start the command."""
        assert self._story is not None
        if self._attempt:
            self._story = None
            return
        self._tell(self._story, **{name: value for name, value in answer.items() if value is not None})
        self._is_told = True
        if self._command:
            self._begin_command()
        else:
            self._story = None

    def _tell(self, story: Told, **known: Any) -> None:
        fields = asdict(story)
        if story.kills is not None:
            known.pop("kills", None)
        if story.sentence is not None:  # the newest kill in the trace is another story's
            known = {"error": known.get("error")}
        fields |= {name: value for name, value in known.items() if name in _FIELDS}
        self._told(Finished(**fields))

    # The command

    def _begin_command(self) -> None:
        assert self._story is not None
        environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_SERVICE}
        argv = (*self._command, str(self._story.trace))
        try:
            with huge_pages_for_children():
                self._child = _Child(argv, environment, self._command_within_s, _STDERR)
        except OSError as error:
            self._warn(f"cannot run {self._command[0]!a}: {error.strerror}")
            self._story = None

    def _end_command(self, child: _Child, status: int) -> None:
        assert self._story is not None
        if status:
            self._warn(f"{self._command[0]!a} {child.how_it_ended(status)}, for {self._story.trace}")
        self._story = None


_FIELDS: Final = frozenset(Finished.__dataclass_fields__) - {"trace", "reason", "time_ns"}
