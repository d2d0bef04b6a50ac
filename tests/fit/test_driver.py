"""The loop over the runs, without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.fit import driver, recorded_run
from tracer.fit.folder import Folder
from tracer.fit.recorded_run import Look
from tracer.fit.search import Bounds, Run

MIB = 1 << 20
FILES = frozenset({"/usr/bin/program"})


class Silent:
    def begins(self, number: int, limit_bytes: int | None) -> None: ...

    def goes_on(self, wall_s: float, most_s: float | None) -> None: ...

    def ended(self, run: Run) -> None: ...


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """Let every process use `FILES`, and return the list of what is dropped before each run."""
    sets: list[frozenset[str]] = []
    monkeypatch.setattr(recorded_run, "files_of", lambda _: FILES)
    monkeypatch.setattr(recorded_run, "drop_files", sets.append)
    return sets


def ending_with(monkeypatch: pytest.MonkeyPatch, statuses: list[int | None]) -> list[float | None]:
    """Let the runs end with these statuses, and return the list of their longest times."""
    longest: list[float | None] = []

    def run(_: object, limit_bytes: int | None, trace: Path, most_s: float | None, look: Look) -> Run:
        longest.append(most_s)
        look(trace, 0.5)
        return Run(limit_bytes, statuses[len(longest) - 1], 3.0, 0, 0, 50 * MIB, trace.name)

    monkeypatch.setattr(recorded_run, "run", run)
    return longest


def test_files_of_the_first_run_are_dropped_before_each_other_one(
    monkeypatch: pytest.MonkeyPatch, dropped: list[frozenset[str]], tmp_path: Path
) -> None:
    ending_with(monkeypatch, [0] * 5)
    driver.fit(Folder.open(tmp_path, ["true"]), Bounds(None, None, 0.1), 3, Silent())
    driver.fit(Folder.open(tmp_path, ["true"]), Bounds(None, None, 0.1), 5, Silent())
    assert dropped == [frozenset(), FILES, FILES, FILES, FILES]


@pytest.mark.usefixtures("dropped")
def test_run_has_a_time_limit_as_soon_as_one_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    longest = ending_with(monkeypatch, [0] * 5)
    driver.fit(Folder.open(tmp_path, ["true"]), Bounds(None, None, 0.1), 5, Silent())
    assert longest == [None, 30.0, 30.0, 30.0, 30.0]


@pytest.mark.usefixtures("dropped")
def test_command_that_does_not_always_end_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ending_with(monkeypatch, [0, None])
    folder = Folder.open(tmp_path, ["true"])
    with pytest.raises(TracerError, match="did not end in 3 s without a limit"):
        driver.fit(folder, Bounds(None, None, 0.1), 9, Silent())
    assert len(folder.runs) == 1


@pytest.mark.usefixtures("dropped")
def test_limit_at_which_the_command_does_not_end_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ending_with(monkeypatch, [0, 0, 0, 0, None])
    found = driver.fit(Folder.open(tmp_path, ["true"]), Bounds(None, 40 * MIB, 0.1), 5, Silent())
    assert (found.least.failed_bytes, found.least.passed_bytes) == (40 * MIB, None)
    assert found.is_complete
