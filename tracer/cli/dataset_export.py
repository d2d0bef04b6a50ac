"""Adds the traces of `export --to dataset`, and reports progress and problems on stderr."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import GARBAGE_OF_MANY_TRACES, standard_streams
from tracer.cli.standard_streams import Progress
from tracer.errors import TracerError
from tracer.render.words.escape import visible
from tracer.urls import shown_url

if TYPE_CHECKING:
    from tracer.fleet.dataset.appending import Appended, Appender
    from tracer.fleet.reduction.inputs import Place


def add_to_dataset(paths: Iterable[Path | str], address: str, *, is_raw: bool, compacts: bool) -> None:
    """Add the traces at or below the paths and URLs to a dataset, and print its address.

    A trace that cannot be read is reported and left out. Without any trace, no dataset is made. Raises
    TracerError at the end if a trace cannot be read, and at once if the dataset cannot be used.
    """
    from tracer.fleet.dataset.appending import Appender
    from tracer.fleet.dataset.compaction import COMPACT_FROM_FILES, compact
    from tracer.fleet.dataset.listing import require_dataset
    from tracer.fleet.dataset.store import Store

    gc.set_threshold(*GARBAGE_OF_MANY_TRACES)
    with standard_streams.progress_of("looking for traces") as now:
        lines = _Lines(now)
        traces = list(_traces(paths, lines))
        store = Store(address)
        if traces:
            days = _append_all(Appender(store, is_raw=is_raw), traces, lines)
        elif compacts:
            require_dataset(store)
        if compacts:
            removed = compact(store, progress=lines.compacting)
        elif traces:
            removed = compact(store, days, fewest=COMPACT_FROM_FILES, progress=lines.compacting)
        else:
            removed = 0
    if removed:
        lines.say(f"{removed} small files were written together with others")
    if traces or compacts:
        click.echo(visible(store.url))
    failures = (("broken", "could not be added"), ("in part", "could be added only in part"))
    failed = [
        f"{_count(lines.counts[name], 'trace')} {what}" for name, what in failures if lines.counts[name]
    ]
    if failed:
        raise TracerError(f"{', '.join(failed)}: see the lines above")


def _append_all(appender: Appender, traces: Sequence[Place], lines: _Lines) -> set[tuple[str, str]]:
    """Add the traces, and return the (table, day) pairs that received rows."""
    from tracer.fleet.reduction.additions import add_all
    from tracer.fleet.reduction.embedded import cpus

    days = set[tuple[str, str]]()

    def report(place: Place, outcome: Appended | str) -> None:
        if isinstance(outcome, str):
            lines.broken(outcome)
        else:
            lines.added_in_part(place.shown, outcome.not_explained)
            lines.added(outcome.kills, outcome.written_bytes)
            days.update(outcome.days)

    workers = cpus() if len(traces) > 1 else 1  # dask, which counts them, takes 0.1 s to import
    add_all(appender, traces, workers, report=report, progress=lines.adding)
    lines.summary()
    return days


def _traces(paths: Iterable[Path | str], lines: _Lines) -> Iterator[Place]:
    """Yield each trace at or below the paths and URLs once."""
    seen = set[str]()
    for path in paths:
        found = _traces_at(path, lines)
        if not found:
            lines.say(f"{shown_url(str(path))} has no traces{_instead(path)}")
        for place in found:
            where = os.path.realpath(place.path) if place.target is None else place.shown
            if where not in seen:
                seen.add(where)
                yield place


def _traces_at(path: Path | str, lines: _Lines) -> Sequence[Place]:
    from tracer.fleet.pushing.finished import trace_paths
    from tracer.fleet.reduction import inputs

    if isinstance(path, str):
        return inputs.find([path]).traces
    return [inputs.Place(str(trace), str(trace)) for trace, _ in trace_paths(path, lines.broken)]


def _instead(path: Path | str) -> str:
    """Return the end of a sentence about a place that has datasets and no traces."""
    from tracer.fleet.reduction import inputs

    datasets = inputs.find([str(path)]).datasets
    return ", but a dataset, which is not added to another: fleet reads any number of them" * bool(datasets)


class _Lines:
    """Writes lines to stderr beside the progress."""

    def __init__(self, now: Progress) -> None:
        self.counts: Counter[str] = Counter()
        self._now = now

    def adding(self, done: int, traces: int) -> None:
        self._now.says(f"{done} of {traces} traces")

    def compacting(self, day: str, files: int) -> None:
        self._now.says(f"writing {files} files of {day} together")

    def added(self, kills: int | None, written_bytes: int) -> None:
        self.counts["there" if kills is None and not written_bytes else "added"] += 1
        self.counts["kills"] += kills or 0
        self.counts["bytes"] += written_bytes

    def broken(self, why: str) -> None:
        self.counts["broken"] += 1
        self.say(f"warning: {why}")

    def added_in_part(self, shown: str, missing: Sequence[str]) -> None:
        self.counts["in part"] += bool(missing)
        for sentence in missing:
            self.say(f"warning: {shown}: {sentence}")

    def summary(self) -> None:
        from tracer.units import size

        counts = self.counts
        added = f"{_count(counts['added'], 'trace')} with {_count(counts['kills'], 'kill')} added"
        parts = [
            f"{added} ({size(counts['bytes'])})" * bool(counts["added"]),
            f"{_count(counts['there'], 'trace')} there already" * bool(counts["there"]),
        ]
        if any(parts):
            self.say(", ".join(filter(None, parts)))

    def say(self, text: str) -> None:
        with suppress(OSError):  # the work goes on if nobody reads the lines
            print(f"memcg-tracer: {visible(text)}", file=sys.stderr, flush=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
