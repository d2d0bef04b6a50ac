"""The caller's view of a recording: progress, and messages for the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Sigkilled(NamedTuple):
    """A SIGKILL that ended a process: a row of `sigkills`, and the name of the process's cgroup, which is the
    container's if it is known by now. `number`: the processes since the report before, of which `row` is the
    last."""

    row: dict[str, Any]
    place: str
    number: int = 1


class Progress(Protocol):
    """Counts of a recording that runs."""

    @property
    def startup_s(self) -> float:
        """Return the seconds from the recorder's start until all probes were attached."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Return the number of rows written so far, by table."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Return the number of records lost so far, by stream: no room in a ring, in memory or on disk."""

    @property
    def kills(self) -> int:
        """Return the number of OOM decisions seen so far; one may kill many tasks."""


class Events(Protocol):
    """Receives the events of any recording."""

    def killed(self, kill: dict[str, Any], place: str) -> None:
        """Report an OOM kill, given as a row of `oom`. `place` is the name of the cgroup whose limit was hit,
        else of the victim's: the container's if it is known by now."""

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        """Report SIGKILLs that ended processes and were not the OOM killer's, within ten seconds."""

    def notice(self, message: str) -> None:
        """Report something that the user asked for or waits for, such as a cgroup that has appeared."""

    def warn(self, message: str) -> None:
        """Report a problem that does not stop the recording."""


class Observer(Events, Protocol):
    """Receives the events of `record`."""

    def ready(self, progress: Progress) -> None:
        """Report that all probes are attached; the command starts after this."""

    def tick(self, progress: Progress) -> None:
        """Report progress; called every half second."""
