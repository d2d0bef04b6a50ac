"""Copy all traces of a directory to a place, once or repeatedly; or move one trace to its own URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tracer.directory import Directory
from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing.finished import FinishedTrace, UnfinishedTrace, examine, trace_paths
from tracer.fleet.pushing.target import Target, TargetError, encoded, private_files
from tracer.fleet.pushing.upload import ChangedError, copy, is_equal, place_of, plain_place, take_away
from tracer.trace import layout
from tracer.trace.write import claim
from tracer.urls import shown_url

State = Literal["pushed", "there", "missing", "later", "failed"]
"""pushed: copied now. there: the target already had all of it. missing: a dry run would copy it. later: it is
left for the next pass. failed: it cannot be copied."""


@dataclass(frozen=True)
class Outcome:
    """The outcome for a trace in a pass. `url` is its URL, or the one that it would get. `why` explains
    `later` and `failed`, and why a trace that the target has was not removed here."""

    trace: Path
    state: State
    url: str | None = None
    sent_bytes: int = 0
    sent_files: int = 0
    is_removed: bool = False
    why: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the line of `push --json`."""
        return asdict(self) | {"trace": str(self.trace)}


class Passes:
    """Passes over the traces below `spool`; each pass copies the traces that the target lacks.

    With `removes`, a trace is removed from the spool after all of it was read back from the target. With
    `is_dry`, nothing is copied or removed. `report` is called with the outcome of each trace; in a later
    pass, only if the outcome has changed. `sent` is called with the length of each file that is sent.

    The constructor raises UsageError if the target is inside the spool.
    """

    def __init__(
        self,
        spool: Path,
        target: Target,
        *,
        report: Callable[[Outcome], None],
        warn: Callable[[str], None],
        sent: Callable[[int], None] = lambda _: None,
        removes: bool = False,
        is_dry: bool = False,
    ) -> None:
        self._spool = spool
        self._target = target
        self._report = report
        self._warn = warn
        self._sent = sent
        self._removes = removes
        self._is_dry = is_dry
        self._done: dict[Path, tuple[int, int]] = {}  # at the target -> what identifies its meta.json
        self._reported: dict[Path, tuple[State, str | None]] = {}
        if target.is_local and _is_inside(Path(target.root), spool):
            raise UsageError(f"{target.url} lies in {spool}: name a place outside of it")

    def run(self, only: Collection[Path] | None = None) -> None:
        """Make one pass, over all traces or over these `only`.

        Raises TargetError if the target cannot be used: the next pass continues where this one ended. Raises
        TracerError if the spool cannot be read.
        """
        paths = trace_paths(self._spool, self._warn)
        there = {path for path, _ in paths}
        self._done = {path: mark for path, mark in self._done.items() if path in there}
        self._reported = {path: told for path, told in self._reported.items() if path in there}
        for path, name in paths:
            mark = _mark(path)
            if mark is None or self._done.get(path) == mark or (only is not None and path not in only):
                continue
            with private_files():
                outcome = self._push(path, name)
            if outcome is None:
                continue
            if outcome.state in ("pushed", "there"):
                self._done[path] = mark
            if self._reported.get(path) != (outcome.state, outcome.why):
                self._reported[path] = outcome.state, outcome.why
                self._report(outcome)

    def _push(self, path: Path, name: tuple[str, ...]) -> Outcome | None:
        """Copy a trace; None: it is gone."""
        try:
            trace = examine(path, name)
            if isinstance(trace, UnfinishedTrace):
                return Outcome(path, "later", why=trace.why)
            return self._looked_up(trace) if self._is_dry else self._copied(trace)
        except TargetError:
            raise
        except (TracerError, OSError) as error:
            if not os.path.lexists(path):
                return None
            state: State = "later" if isinstance(error, ChangedError) else "failed"
            why = f"cannot read {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            return Outcome(path, state, why=why)

    def _looked_up(self, trace: FinishedTrace) -> Outcome:
        place = place_of(self._target, trace)
        url = self._target.url_of(place or plain_place(trace))
        return Outcome(trace.path, "there" if place else "missing", url)

    def _copied(self, trace: FinishedTrace) -> Outcome:
        copied = copy(self._target, trace, self._sent)
        why = self._remove(trace, copied.place) if self._removes else None
        return Outcome(
            trace.path,
            "there" if copied.was_there else "pushed",
            self._target.url_of(copied.place),
            copied.sent_bytes,
            copied.sent_files,
            is_removed=self._removes and why is None,
            why=why,
        )

    def _remove(self, trace: FinishedTrace, place: str) -> str | None:
        """Remove a trace from the spool if the target has each byte of it; else return why it is kept."""
        if not is_equal(self._target, trace, place):
            return "it is kept here: at the URL are other bytes"
        hidden = f"{claim.UNFINISHED}{trace.path.name}"
        try:
            with Directory.open(trace.path.parent.resolve()) as parent:
                claim.remove(parent, Path(os.path.realpath(trace.path)).name, hidden)
        except TracerError as error:
            return f"it is kept here: {error}"
        except OSError as error:
            return f"it is kept here: it cannot be removed ({error.strerror or error})"
        return None


def _mark(path: Path) -> tuple[int, int] | None:
    """Return what identifies the meta.json of a trace, which is replaced when the trace is completed."""
    try:
        status = (path / layout.META).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _is_inside(place: Path, spool: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(spool))


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of the place and the name of the trace there; raises UsageError if there is no name."""
    place, _, name = url.rstrip("/").rpartition("/")
    if "://" not in place or name in ("", ".", ".."):
        shown = shown_url(url)
        such_as = f"{shown}bucket/web" if shown.endswith("://") else f"{shown.rstrip('/')}/web"
        raise UsageError(f"{shown} names no trace: add a name, such as {such_as}")
    return (f"{place}/" if place.endswith("://") else place), name


def require_absent_trace(url: str, *, force: bool) -> None:
    """Raise TracerError if a trace is at the URL, unless it may be replaced, or if the URL cannot be used."""
    place, name = split_url(url)
    if Target(place).read(f"{encoded(name)}/{layout.META}", 1) is not None and not force:
        raise TracerError(f"{shown_url(url)} exists: choose another place, or overwrite it with -f")


def move(trace: Path, url: str, *, force: bool, warn: Callable[[str], None]) -> str:
    """Move a finished trace to a URL, and return its URL. Its directory must have the name in the URL.

    With `force`, a trace at the URL is removed first. Without it, a trace that appeared there meanwhile is
    kept, and this one gets another URL, which is returned. `warn` is called with a line if the trace cannot
    be removed here.

    Raises TracerError if the trace could not be copied; it then stays here.
    """
    place, name = split_url(url)
    target = Target(place)
    if force:
        take_away(target, encoded(name))
    outcomes: list[Outcome] = []
    Passes(trace, target, report=outcomes.append, warn=warn, removes=True).run()
    for outcome in outcomes:
        if outcome.state not in ("pushed", "there"):
            raise TracerError(str(outcome.why))
        if outcome.why:
            warn(f"{trace}: {outcome.why}")
        return str(outcome.url)
    raise TracerError(f"{trace} is gone")
