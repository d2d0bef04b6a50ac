"""The end of a story: its trace is completed and explained, then a command gets the trace's path.

Children do both, one at a time, beside the recording loop.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypedDict

from tracer.kernel.process.children import (
    argv_of_module,
    environment_of_modules,
    huge_pages_for_children,
)
from tracer.watch.child import Child
from tracer.watch.completing import COMPLETE_ONLY, PODS_SINCE

COMPLETING_WITHIN_S: Final = 300.0
"""The CPU time of a completing child. A limit in time would throw its work away on a busy machine."""
HURRIES_AFTER_S: Final = 30.0
"""The time after which a completing child gets normal priority. Before, it gets a hundredth of a busy CPU."""
COMMAND_WITHIN_S: Final = 60.0
AGAIN_AFTER_S: Final = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""The times between attempts to complete a trace, which fail on a full disk. The next start tries again."""

_COMPLETING: Final = argv_of_module("tracer.watch.completing")
_STDERR: Final = 2
_OF_THE_SERVICE: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


@dataclass(frozen=True)
class Told:
    """A trace whose story is over. `time_ns` is CLOCK_REALTIME at the trigger, `cgroup` is a path.

    `kills` is the number of OOM decisions of the story; None: all decisions in the trace. `sentence`
    describes a story without a kill, and is safe to print; None: the explanation of the trace gives it. Names
    are copied from the trace unescaped: any user can choose them.
    """

    trace: Path
    reason: str
    time_ns: int
    cgroup: str | None
    kills: int | None
    container: str | None = None
    sentence: str | None = None


class FinishedTrace(TypedDict):
    """The object of a trace in `watch --json`, with the meanings of `Finished`; `time` is ISO 8601, and
    `summary` is the sentence."""

    trace: str
    reason: str
    time: str
    cgroup: str | None
    kills: int | None
    container: str | None
    cause: str | None
    summary: str | None
    error: str | None
    pod: str | None


@dataclass(frozen=True)
class Finished(Told):
    """A trace that is completed and explained, or the `error`. Even with an error, the trace is readable.

    If there is a `cause`, then cause, pod, sentence and names describe the newest kill. `causes` are
    (kill_id, cause) of all kills in the trace, including kills that earlier traces also contain. `pods` are
    the objects of `tracer.watch.completing`, without kills that earlier traces also contain, and
    `pods_left_out` more are not there.
    """

    cause: str | None = None
    pod: str | None = None
    error: str | None = None
    causes: Sequence[tuple[int, str]] = ()
    pods: Sequence[Mapping[str, Any]] = ()
    pods_left_out: int = 0

    def document(self) -> FinishedTrace:
        """Return the object of this trace in `watch --json`, which `--exec` gets as well."""
        from tracer.trace.meta import utc_time  # noqa: PLC0415  it imports Arrow

        return {
            "trace": str(self.trace),
            "reason": self.reason,
            "time": utc_time({"monotonic_ns": 0, "realtime_ns": 0}, self.time_ns),
            "cgroup": self.cgroup,
            "kills": self.kills,
            "container": self.container,
            "cause": self.cause,
            "summary": self.sentence,
            "error": self.error,
            "pod": self.pod,
        }


class Finishing:
    """A queue of traces to complete. For each completed trace, `told` is called, then `command` is run. If it
    could not be explained, but can at a later attempt, `told` is called again.

    The command gets the trace's path as its last argument, without a shell, and on its standard input a line
    of JSON (`Finished.document`). Its output goes to the recorder's
    stderr. It may run for `COMMAND_WITHIN_S`, and `warn` is called with a line if it fails. A child that
    completes a trace may take `COMPLETING_WITHIN_S` of CPU time. With `finds_pods`, `told` also gets the pods
    that had a kill.

    For an event loop: call `step`, which never blocks, now and then, unless `due_s` is infinite.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        told: Callable[[Finished], None],
        warn: Callable[[str], None],
        *,
        finds_pods: bool = False,
        completing: tuple[str, ...] = _COMPLETING,
        completing_within_s: float = COMPLETING_WITHIN_S,
        hurries_after_s: float = HURRIES_AFTER_S,
        command_within_s: float = COMMAND_WITHIN_S,
        again_after_s: Sequence[float] = AGAIN_AFTER_S,
    ) -> None:
        self._command = command
        self._told = told
        self._warn = warn
        self._finds_pods = finds_pods
        self._completing = completing
        self._completing_within_s = completing_within_s
        self._hurries_after_s = hurries_after_s
        self._command_within_s = command_within_s
        self._waiting: deque[Told] = deque()
        self._story: Told | None = None  # the story of the child
        self._child: Child | None = None
        self._is_told = False  # true: the child is the command
        self._again_after_s = again_after_s
        self._again: deque[tuple[float, int, Told]] = deque()  # (time of the next attempt, number, story)
        self._attempt = 0  # earlier attempts at `_story`: if there were any, `told` was called
        self._unexplained: set[Path] = set()  # traces of `_again` for which `told` got no explanation

    @property
    def in_use(self) -> Path | None:
        """Return the trace that is being completed, or that the command has."""
        return None if self._story is None else self._story.trace

    @property
    def waiting(self) -> list[Path]:
        """Return the traces that wait, without those that wait for another attempt."""
        return [story.trace for story in self._waiting]

    @property
    def is_active(self) -> bool:
        """Return whether a child runs, or a trace waits for its first attempt."""
        return self._child is not None or bool(self._waiting)

    @property
    def due_s(self) -> float:
        """Return the time on CLOCK_MONOTONIC at which `step` must be called; infinite: there is no work."""
        if self._child is not None:
            return self._child.due_s
        return 0.0 if self._waiting else min((due_s for due_s, *_ in self._again), default=math.inf)

    def add(self, story: Told) -> None:
        """Put a trace at the end of the queue, unless it is in the queue already."""
        if story.trace != self.in_use and story.trace not in self.waiting:
            self._waiting.append(story)

    def removed(self, traces: Collection[Path]) -> None:
        """Forget traces that were removed while they waited; `told` gets each with an error, unless it had it
        before."""
        gone = [story for story in self._waiting if story.trace in traces]
        self._waiting = deque(story for story in self._waiting if story.trace not in traces)
        self._again = deque(one for one in self._again if one[2].trace not in traces)
        self._unexplained -= {*traces}
        for story in gone:
            why = "not completed: removed before, to keep within --max-disk and --keep-traces"
            self._tell(story, error=why)

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

    def finish(self, deadline_s: float, *, explains: bool = True) -> None:
        """Complete the traces of the queue until `deadline_s` (CLOCK_MONOTONIC), for the end of `watch`.

        Traces that are left over are for the next start: `told` gets them with an error, and the command is
        not run. Unless it `explains`, a completing child begins anew, with a head start.
        """
        if not explains:
            self._completing = (*self._completing, COMPLETE_ONLY)
            if self._child is not None and self._story is not None and not self._is_told:
                self._child.end()
                self._child = None
                self._waiting.appendleft(self._story)
        while (now_s := time.monotonic()) < deadline_s:
            self.step(now_s)
            if not self.is_active:
                return
            if self._child is not None:
                self._child.wait(deadline_s)
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
        """Start to complete the next trace, or a trace whose next attempt is due."""
        if self._waiting:
            self._attempt, self._story = 0, self._waiting.popleft()
        else:
            due = next(one for one in self._again if one[0] <= now_s)
            self._again.remove(due)
            _, self._attempt, self._story = due
        self._is_told = False
        since = (f"{PODS_SINCE}{self._story.time_ns}",) if self._finds_pods else ()
        argv = (*self._completing, *since, str(self._story.trace))
        try:
            within_s, environment = self._completing_within_s, environment_of_modules()
            is_awaited = COMPLETE_ONLY in argv
            self._child = Child(
                argv, environment, within_s, subprocess.PIPE, is_of_cpu=True, is_awaited=is_awaited
            )
            self._child.hurries_s = time.monotonic() + self._hurries_after_s
        except OSError as error:
            self._end_story({"error": f"not completed: no process can be started ({error.strerror})"})

    def _end_completing(self, child: Child, status: int) -> None:
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
            if self._story.trace.exists():
                self._again.append((due_s, self._attempt + 1, self._story))
        self._end_story(answer)

    def _end_story(self, answer: dict[str, Any]) -> None:
        """Report that a trace is done, and start the command. After a repeated attempt, only report an
        explanation that was not there before."""
        assert self._story is not None
        trace, is_explained = self._story.trace, answer.get("kills") is not None
        finished = _finished(
            self._story, **{name: value for name, value in answer.items() if value is not None}
        )
        if not self._attempt or (is_explained and trace in self._unexplained):
            self._told(finished)
        self._unexplained.discard(trace)
        if not is_explained and any(story.trace == trace for *_, story in self._again):
            self._unexplained.add(trace)
        if self._attempt:
            self._story = None
            return
        self._is_told = True
        if self._command:
            self._begin_command(finished)
        else:
            self._story = None

    def _tell(self, story: Told, *, error: str) -> None:
        self._told(_finished(story, error=error))

    # The command

    def _begin_command(self, finished: Finished) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_SERVICE}
        argv, line = (*self._command, str(finished.trace)), json.dumps(finished.document()) + "\n"
        try:
            with huge_pages_for_children():
                self._child = Child(argv, environment, self._command_within_s, _STDERR, text=line)
        except OSError as error:
            self._warn(f"cannot run {self._command[0]!a}: {error.strerror}")
            self._story = None

    def _end_command(self, child: Child, status: int) -> None:
        assert self._story is not None
        if status:
            self._warn(f"{self._command[0]!a} {child.how_it_ended(status)}, for {self._story.trace}")
        self._story = None


def _finished(story: Told, **known: Any) -> Finished:
    """Return a story with what is known about its trace."""
    fields = asdict(story)
    if story.kills is not None:
        known.pop("kills", None)
    if story.sentence is not None:  # the newest kill in the trace belongs to another story
        known = {name: known[name] for name in ("error", "causes") if name in known}
    fields |= {name: value for name, value in known.items() if name in _FIELDS}
    return Finished(**fields)


_FIELDS: Final = frozenset(Finished.__dataclass_fields__) - {"trace", "reason", "time_ns"}
