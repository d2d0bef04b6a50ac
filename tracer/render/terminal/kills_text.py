"""Many kills for a terminal: a summary, and a line for each kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.render.terminal import paragraphs
from tracer.render.words import kill_list
from tracer.render.words.prose import prose

MOST_LINES: Final = 8


def above_the_explanation(reports: Sequence[OomReport], explained: OomReport) -> Iterator[RenderableType]:
    """Yield the text above the explanation of one of many kills.

    The text has the number of kills of each name, a line for each of the last kills, and the number of the
    explained kill.
    """
    yield from (prose(sentence, "bold") for sentence in kill_list.summary(reports))
    yield Text()
    yield from listed(reports[-MOST_LINES:])
    left_out = len(reports) - MOST_LINES
    if left_out > 0:
        yield paragraphs.note(f"{units.count(left_out)} earlier kills are left out: --list shows all")
    yield Text()
    others = kill_list.others(len(reports) - 1)
    newest = "the newest" if explained is reports[-1] else "the newest with a known victim"
    yield prose(f"Kill {explained.kill_id}, {newest} ({others}: --kill N explains one)", "bold cyan")
    yield Text()


def one_of_many(reports: Sequence[OomReport], explained: OomReport) -> Iterator[RenderableType]:
    """Yield the line above the explanation of a kill that was chosen by an option."""
    yield prose(f"Kill {explained.kill_id}; {kill_list.others(len(reports) - 1)}: --list", "dim")
    yield Text()


def listed(reports: Sequence[OomReport]) -> Iterator[RenderableType]:
    """Yield a table with a line for each kill."""
    table = paragraphs.Rows(*kill_list.columns(reports))
    for row in kill_list.rows(reports):
        table.add_row(*row)
    day = kill_list.one_day(reports)
    if day is not None:
        yield paragraphs.note(f"times are of {day}, UTC")
    yield paragraphs.indented(table)
