"""The answer of `fleet` as one self-contained HTML page, without requests and scripts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tracer import units
from tracer.fleet.reduction.fleet_answer import Fleet, Workload
from tracer.render.fleet import fleet_facts, fleet_pictures, fleet_tables, limit_states
from tracer.render.fleet.fleet_facts import counted
from tracer.render.fleet.fleet_tables import MOST_ROWS_OF_PAGE, NAMES, Section
from tracer.render.page import page_frame
from tracer.render.page.tiles import Tile


def page(fleet: Fleet) -> str:
    """Return the page. The same answer always gives the same text."""
    style = page_frame.style(fleet_pictures.colours())
    return (
        page_frame.environment()
        .get_template("fleet.html.j2")
        .render(
            title="memcg-tracer fleet",
            headline=fleet_facts.sentence(fleet),
            tiles=_tiles(fleet),
            facts=list(fleet_facts.facts(fleet)),
            warnings=list(fleet_facts.warnings(fleet)),
            sections=[_named_first(one) for one in fleet_tables.sections(fleet, MOST_ROWS_OF_PAGE)],
            over_time=fleet_pictures.over_time(fleet),
            pictures={
                fleet_tables.KILLS: fleet_pictures.by_workload(fleet),
                fleet_tables.LIMITS: fleet_pictures.limits(fleet),
            },
            names=NAMES,
            count=units.count,
            classes={"<": "left", ">": "right"},
            style=Markup(style),
            style_hash=Markup(page_frame.source_hash(style)),
        )
    )


def _named_first(section: Section) -> Section:
    """Return a table with its columns of names first: a narrow screen may show only the first columns."""
    return section.with_columns(
        sorted(range(len(section.columns)), key=lambda at: section.columns[at][0] not in NAMES)
    )


def _tiles(fleet: Fleet) -> tuple[Tile, Tile, Tile]:
    kills = sum(one.count for one in fleet.kills)
    workloads = len({one.workload for one in fleet.kills})
    others = fleet_facts.evicted_by_others(fleet)
    return (
        Tile("kills", units.count(kills), f"of {counted(workloads, 'workload')}"),
        _limits_tile([one for one in fleet.workloads if one.limit_bytes is not None]),
        Tile("page cache evicted", units.size(others), "by tasks of another workload"),
    )


def _limits_tile(limited: Sequence[Workload]) -> Tile:
    label = "limits too low"
    if not limited:
        return Tile(label, units.UNKNOWN, "no workload with a limit was recorded")
    if not any(map(limit_states.is_judged, limited)):
        return Tile(label, units.UNKNOWN, "too few runs ended without a kill")
    low, high = (units.count(len(found(limited))) for found in (limit_states.too_low, limit_states.too_high))
    return Tile(label, low, f"and {high} too high, of {units.count(len(limited))}")
