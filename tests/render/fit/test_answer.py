"""The answer of `fit` in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.fit.driver import found
from tracer.fit.search import Bounds, Run
from tracer.render.fit.answer import fit_text
from tracer.render.terminal.console import to_text

MIB = 1 << 20
BOUNDS = Bounds(None, None, 0.1)


def run(
    limit_bytes: int | None,
    status: int | None = 0,
    wall_s: float = 1.0,
    kills: int = 0,
    lost_share: float | None = None,
) -> Run:
    return Run(limit_bytes, status, wall_s, 0, kills, 300 * MIB, "run", lost_share)


def text_of(runs: list[Run], columns: int = 100) -> str:
    answer = fit_text(found(runs, BOUNDS), runs, BOUNDS, Path("folder"), Path("folder/curve.svg"))
    return to_text(answer, columns=columns, colour=False)


def test_limit_at_which_some_runs_fail_is_named() -> None:
    text = text_of([run(None)] * 4 + [run(200 * MIB), run(100 * MIB), run(100 * MIB, 137, kills=1)])
    assert "At 100 MiB, 1 of 2 runs succeeded: what it needs varies from run to run." in text
    assert "It succeeds from: not found yet, more than 100 MiB and at most 200 MiB." in text


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_bars_are_drawn_to_scale_at_every_width(columns: int) -> None:
    runs = [run(None, wall_s=wall_s) for wall_s in (4.0, 3.0, 2.0)] + [run(MIB, 137, 1.0, kills=1)]
    text = text_of(runs, columns)
    bars = [line.count("█") for line in text.splitlines() if "█" in line]
    assert "…" not in text
    longest = max(bars)
    assert longest >= 4
    assert bars == [pytest.approx(share * longest, abs=1) for share in (0.25, 1, 0.75, 0.5)]


def test_highest_limit_that_fails_has_no_answer() -> None:
    text = text_of([run(None)] * 4 + [run(200 * MIB, None, 10.0)])
    assert "It succeeds from: not found, not even at 200 MiB." in text
    assert "ended: it took too long" in text


def test_times_that_differ_from_run_to_run_have_no_comfortable_limit() -> None:
    text = text_of([run(None)] * 3 + [run(None, wall_s=1.3), run(319 * MIB)])
    assert "It is at most 10 % slower from: not known, its times without a limit differ by 30 %" in text


def test_times_that_differ_leave_the_answer_to_the_lost_time() -> None:
    unlimited = [run(None, wall_s=wall_s, lost_share=0.0) for wall_s in (1.0, 1.0, 1.3, 1.0)]
    limited = [run(320 * MIB, lost_share=0.0), *[run(MIB, wall_s=3.0, lost_share=0.0625)] * 2]
    text = text_of([*unlimited, *limited])
    assert "It is at most 10 % slower, by its lost time, from 1 MiB (no lower limit was tried)." in text
    assert "Its times without a limit differ by 30 % from run to run. So the time" in text
    assert "6.2 %" in text


def test_success_despite_kills_shows_the_kills() -> None:
    assert "succeeded, 2 OOM kills" in text_of([run(None)] * 4 + [run(200 * MIB, kills=2)])
