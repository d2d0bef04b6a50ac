"""The answer of `fleet` as one self-contained HTML page, without requests and scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from markupsafe import Markup

from tracer import units
from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.render.fleet import fleet_tables
from tracer.render.fleet.fleet_tables import NAMES, Section
from tracer.render.page import page_frame
from tracer.render.page.tiles import Tile

_MOST_ROWS: Final = 500
"""More rows in one table would make a browser slow."""


def page(fleet: Fleet) -> str:
    """Return the page; the same answer always gives the same text."""
    style = page_frame.style()
    return (
        page_frame.environment()
        .get_template("fleet.html.j2")
        .render(
            title="memcg-tracer fleet",
            headline=fleet_tables.sentence(fleet),
            tiles=_tiles(fleet),
            facts=list(fleet_tables.facts(fleet)),
            sections=[_named_first(one) for one in fleet_tables.sections(fleet, _MOST_ROWS)],
            names=NAMES,
            classes={"<": "left", ">": "right"},
            style=Markup(style),
            style_hash=Markup(page_frame.source_hash(style)),
        )
    )


def _named_first(section: Section) -> Section:
    """Return a table with its names before its numbers, which a narrow screen shows last."""
    order = sorted(range(len(section.columns)), key=lambda at: section.columns[at][0] not in NAMES)
    return replace(
        section,
        columns=[section.columns[at] for at in order],
        rows=[[row[at] for at in order] for row in section.rows],
    )


def _tiles(fleet: Fleet) -> tuple[Tile, Tile, Tile]:
    kills = sum(one.count for one in fleet.kills)
    workloads = len({one.workload for one in fleet.kills})
    below, above = fleet_tables.wrong_limits(fleet.workloads)
    others = fleet_tables.evicted_by_others(fleet)
    return (
        Tile("kills", units.count(kills), f"of {fleet_tables.counted(workloads, 'workload')}"),
        Tile("limits too low", units.count(below), f"and {units.count(above)} above the suggestion")
        if fleet_tables.has_suggestion(fleet.workloads)
        else Tile("limits too low", units.UNKNOWN, "too few runs ended without a kill"),
        Tile("page cache evicted", units.size(others), "by tasks of another workload"),
    )
