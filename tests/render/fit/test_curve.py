"""The picture of the curve, as an XML document."""

from __future__ import annotations

from xml.etree import ElementTree

from tracer.fit.driver import found
from tracer.fit.search import Bounds, Run
from tracer.render.fit.curve import curve

MIB = 1 << 20
BOUNDS = Bounds(None, None, 0.1)
UNLIMITED = [Run(None, 0, 1.0, 0, 0, 300 * MIB, "run")] * 4
LIMITED = [
    Run(300 * MIB, 0, 1.0, 0, 0, None, "run"),
    Run(200 * MIB, 0, 1.5, 37 * MIB, 0, None, "run"),
    Run(100 * MIB, 137, 0.4, 0, 2, None, "run"),
    Run(90 * MIB, 1, 0.4, None, 1, None, "run"),
    Run(80 * MIB, None, 10.0, 5, 0, None, "run"),
]


def words_of(runs: list[Run]) -> list[str]:
    svg = curve(found(runs, BOUNDS), runs, BOUNDS)
    assert svg == curve(found(runs, BOUNDS), runs, BOUNDS)
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def test_curve_shows_each_kind_of_end_and_the_kills() -> None:
    words = words_of([*UNLIMITED, *LIMITED])
    assert {"succeeded", "succeeded, slower", "failed", "without a limit", "10 % slower"} <= set(words)
    assert {"2 kills", "1 kill", "read again, MiB", "limit, MiB"} <= set(words)


def test_curve_by_lost_time_has_no_line_of_the_accepted_time() -> None:
    unlimited = [Run(None, 0, wall_s, 0, 0, 300 * MIB, "run", 0.0) for wall_s in (1.0, 1.0, 1.3, 1.0)]
    limited = [Run(limit * MIB, 0, 1.0, 0, 0, None, "run", lost) for limit, lost in ((319, 0.0), (99, 0.4))]
    words = words_of([*unlimited, *limited])
    assert {"succeeded", "succeeded, slower"} <= set(words)
    assert "10 % slower" not in words


def test_curve_names_the_limits_that_are_found() -> None:
    runs = [*UNLIMITED, *(Run(limit * MIB, 0, 1.0, 0, 0, None, "run") for limit in (319, 1, 1))]
    assert {"least limit 1 MiB", "comfortable limit 1 MiB"} <= set(words_of(runs))


def test_curve_of_runs_that_all_failed_can_be_drawn() -> None:
    assert "failed" in words_of([*UNLIMITED, LIMITED[-1]])
