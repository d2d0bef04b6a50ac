"""Wrapping: no line breaks inside a word, or between a number and its unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import RenderableType
from support.recorded import NAMES, opened, reports_of

from tracer.analysis.explain import logged_kills
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg import log_files
from tracer.render.terminal import console, explain_text, survivor_text
from tracer.render.words.prose import prose

TOP = Path(__file__).parents[3]
LOGS = sorted((TOP / "tests/kernel/kmsg/corpus").glob("*.log"))
SOME_WIDTHS = (60, 61, 67, 79, 80, 100, 120)
LABEL_CELLS = 16
"""The cells before a sentence with a label. A word that is longer than the rest of the line is broken."""

ENDS_IN_A_NUMBER = re.compile(r"[\d][\d,.]*$")
BEGINS_WITH_A_UNIT = re.compile(r"\s*(?:B|[KMGT]iB|[um]?s|%|min|h)(?![\w/])")


def words(laid_out: str) -> set[str]:
    return {word.strip("(),.;:") for word in laid_out.split()}


def assert_unbroken(draw: Callable[[], Iterable[RenderableType]], known: set[str], columns: int) -> None:
    lines = console.to_text(draw(), columns=columns, colour=False).splitlines()
    assert max(map(cell_len, lines)) <= columns
    pairs = pairwise(lines)
    assert [
        pair for pair in pairs if ENDS_IN_A_NUMBER.search(pair[0]) and BEGINS_WITH_A_UNIT.match(pair[1])
    ] == []
    too_long = [word for word in known if cell_len(word) > columns - LABEL_CELLS]
    torn = words("\n".join(lines)) - known
    assert {word for word in torn if not any(word in long for long in too_long)} == set()


def forms(report: OomReport) -> set[str]:
    """Return the words of the explanation of a kill in any width, with bars and without."""
    brief = [explain_text.kill_screen(report, lines=1000)]
    drawn = [console.to_text(brief, columns=columns, colour=False) for columns in (99, 1000)]
    drawn.append(console.to_text(everything(report), columns=1000, colour=False))
    left_out = [f"and {amount} more (-v)" for amount in range(len(report.advice) + 1)]
    return words("\n".join([*drawn, *left_out]))


def everything(report: OomReport) -> Iterator[RenderableType]:
    return explain_text.post_mortem(report, page_size=4096, verbose=True)


def screen(report: OomReport) -> list[RenderableType]:
    return [explain_text.kill_screen(report)]


def widths_of(example: str, apart: int) -> range:
    """Return widths that are so many columns apart; the examples together have each from 60 to 120."""
    return range(60 + NAMES.index(example) % apart, 121, apart)


@pytest.mark.parametrize("example", NAMES)
def test_recorded_examples_wrap_between_words(example: str) -> None:
    for report in reports_of(example):
        known = forms(report)
        for columns in widths_of(example, 8):
            assert_unbroken(partial(screen, report), known, columns)
        for columns in widths_of(example, 15):
            assert_unbroken(partial(everything, report), known, columns)


@pytest.mark.parametrize("verbose", [False, True])
def test_recorded_survivors_wrap_between_words(verbose: bool) -> None:
    held = opened("thrash").held_cgroups()
    known = words(console.to_text(survivor_text.held(held, verbose=verbose), columns=1000, colour=False))
    for columns in SOME_WIDTHS:
        assert_unbroken(partial(survivor_text.held, held, verbose=verbose), known, columns)


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_kernel_logs_wrap_between_words(log: Path) -> None:
    for report in list(logged_kills.explain(log_files.read(str(log)).reports))[:3]:
        known = forms(report)
        for columns in (60, 80, 100):
            assert_unbroken(partial(screen, report), known, columns)
            assert_unbroken(partial(everything, report), known, columns)


@pytest.mark.parametrize("example", NAMES)
@pytest.mark.parametrize("columns", [80, 100])
def test_first_screen_of_an_example_fits(example: str, columns: int) -> None:
    for report in reports_of(example):
        lines = console.to_text(
            [explain_text.kill_screen(report)], columns=columns, colour=False
        ).splitlines()
        assert len(lines) <= explain_text.SCREEN_LINES


@pytest.mark.parametrize(
    "pair", ["99.7 MiB", "1,024 pages", "12 %", "2 min 03 s", "5 h 02 min", "(pid 41)", "0 B", "kill 3"]
)
def test_number_and_unit_stay_on_a_line(pair: str) -> None:
    for columns in range(len(pair), 30):
        laid_out = console.to_text([prose(f"aaaa bbbb {pair} cccc")], columns=columns, colour=False)
        assert any(pair in line for line in laid_out.splitlines()), laid_out
