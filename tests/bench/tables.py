"""The tables of results on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from bench.results import Program, Results, is_above, number, spread
from rich.table import Table

FEW: Final = 6


def tables(results: Results) -> Iterator[Table | str]:
    """Yield what a terminal of 100 columns shows: slowdowns, other figures, programs, what was left out."""
    if results.slowdowns:
        yield _slowdowns(results)
        yield ""
    if results.figures:
        yield _figures(results)
        yield ""
    if results.programs:
        yield _programs(results)
        yield ""
    yield from (f"left out: {reason}" for reason in results.left_out)


def _slowdowns(results: Results) -> Table:
    table = Table("slowdown in percent", "by", "processor time", "wall time", "at most", box=None)
    before = ""
    for one in results.slowdowns:
        limit = aim(one.processor_percent, one.at_most)
        if one.wall_at_most is not None:
            limit += f"; wall {aim(one.wall_percent, one.wall_at_most)}"
        title = one.what if one.what != before else ""
        table.add_row(title, one.by, spread(one.processor_percent), number(median(one.wall_percent)), limit)
        before = one.what
    return table


def _figures(results: Results) -> Table:
    table = Table("figure", "of", "measured", "at most", box=None)
    for one in results.figures:
        table.add_row(one.what, one.by, spread(one.values, one.unit), aim(one.values, one.at_most))
    return table


def _programs(results: Results) -> Table:
    """Return the programs that took most time, for each work and tracer."""
    table = Table("BPF programs", "of", "program", "runs", "ns a run", "ms", box=None)
    shown: dict[tuple[str, str], list[Program]] = {}
    for one in results.programs:
        shown.setdefault((one.work, one.by), []).append(one)
    for (work, by), programs in shown.items():
        for one in programs[:FEW]:
            spent = one.runs * one.mean_ns / 1e6
            head = (work, by) if one is programs[0] else ("", "")
            table.add_row(*head, one.program, f"{one.runs:,}", number(one.mean_ns), number(spent))
    return table


def aim(values: list[float], at_most: float | None, unit: str = "") -> str:
    """Return the aim, and whether it was missed."""
    if at_most is None:
        return ""
    return f"{at_most:g} {unit}".rstrip() + (" MISSED" if is_above(values, at_most) else "")
