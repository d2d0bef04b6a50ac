"""The runs of a search, one after the other, until both limits are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Protocol

from tracer.errors import TracerError
from tracer.fit import recorded_run, search
from tracer.fit.folder import Folder
from tracer.fit.search import Bounds, Interval, Run, Yardstick
from tracer.units import duration

_PATIENCE: Final = 10
_PATIENCE_S: Final = 10.0


class Observer(Protocol):
    """Is called for each run: at its begin, some times a second, and at its end."""

    def begins(self, number: int, limit_bytes: int | None) -> None: ...

    def goes_on(self, wall_s: float, most_s: float | None) -> None: ...

    def ended(self, run: Run) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The results of the runs. A limit is None until it is found.

    `by` decides which limits are comfortable; None: no yardstick is reliable, so no comfortable limit is
    searched.
    """

    unlimited_wall_s: float
    unlimited_spread: float
    by: Yardstick | None
    least: Interval
    comfortable: Interval
    least_limit_bytes: int | None
    comfortable_limit_bytes: int | None
    is_complete: bool


def fit(folder: Folder, bounds: Bounds, most_runs: int, observer: Observer) -> Found:
    """Run the command of the folder until both limits are found or the folder has `most_runs` runs; return
    the results.

    Raises TracerError if the command fails or does not end without a limit, or if a run cannot be recorded.
    """
    while len(folder.runs) < most_runs:
        attempt = search.next_attempt(folder.runs, bounds)
        if attempt is None:
            break
        run, files = _run(folder, attempt.limit_bytes, observer)
        folder.add(run, files)
        observer.ended(run)
    return found(folder.runs, bounds)


def found(runs: list[Run], bounds: Bounds) -> Found:
    """Return the results of these runs; at least one run must be without a limit."""
    by = search.yardstick(runs, bounds)
    least = search.interval(runs, search.succeeds)
    comfortable = Interval(None, None) if by is None else search.comfortable(runs, by, bounds)
    return Found(
        median(search.unlimited_walls_s(runs)),
        search.unlimited_spread(runs),
        by,
        least,
        comfortable,
        least.passed_bytes if search.is_found(runs, least, bounds) else None,
        comfortable.passed_bytes if search.is_found(runs, comfortable, bounds) else None,
        search.next_attempt(runs, bounds) is None,
    )


def _run(folder: Folder, limit_bytes: int | None, observer: Observer) -> tuple[Run, frozenset[str]]:
    """Run the command once; return the run, and for the first run the files that it used."""
    most_s, files = _most_s(folder.runs), set[str]()

    def look(cgroup: Path, wall_s: float) -> None:
        if not folder.runs:
            files.update(recorded_run.files_of(cgroup))
        observer.goes_on(wall_s, most_s)

    observer.begins(len(folder.runs) + 1, limit_bytes)
    recorded_run.drop_files(folder.files)
    run = recorded_run.run(folder.argv, limit_bytes, folder.next_trace(), most_s, look)
    if limit_bytes is None:
        _require_success(run, folder)
    return run, frozenset(files)


def _most_s(runs: list[Run]) -> float | None:
    """Return the time after which a run is ended; None for the first run.

    A command that reads its own program again and again may never end.
    """
    if not runs:
        return None
    wall_s = median(search.unlimited_walls_s(runs))
    return max(wall_s * _PATIENCE, wall_s + _PATIENCE_S)


def _require_success(run: Run, folder: Folder) -> None:
    """Raise TracerError if a run without a limit did not end with status 0."""
    if run.status is None:
        earlier_s = median(search.unlimited_walls_s(folder.runs))
        raise TracerError(
            f"the command did not end in {duration(run.wall_s)} without a limit, and an earlier run took "
            f"{duration(earlier_s)}: fit is for commands that do the same work each time"
        )
    if run.status != 0:
        raise TracerError(
            f"the command fails without a limit (status {run.status}), so no limit can be told from another: "
            f"see {folder.next_trace().with_suffix('.log')}"
        )
