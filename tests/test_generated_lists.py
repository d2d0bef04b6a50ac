"""The lists of the manual that follow from the quantities and metric families."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.golden import compare

from tracer.metric_families import FAMILIES, PLACE_LABELS
from tracer.quantities import SORT_KEYS, TOP_COLUMNS
from tracer.top.help_text import meaning

MANUAL = Path(__file__).parents[1] / "docs" / "memcg-tracer.1"


def columns_of_top() -> Iterator[str]:
    yield ".Bl -tag -width CUSHION -compact"
    for quantity, column in TOP_COLUMNS:
        words = meaning(quantity)
        yield from (f".It {column.head}", f"{words[0].upper()}{words[1:]}.")
    yield ".El"


def sort_keys() -> Iterator[str]:
    *keys, last = SORT_KEYS
    yield from (f".Cm {' , '.join(keys)}", "or", f".Cm {last} ;", "the default is", ".Cm usage .")


def fields_of_top() -> Iterator[str]:
    *fields, last = (column.field for _, column in TOP_COLUMNS)
    yield from (*(f".Li {field} ," for field in fields), f".Li {last}")


def metrics() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for family in FAMILIES:
        more = [label for label in family.labels if label not in PLACE_LABELS]
        name = family.sample_name.removeprefix("memcg_tracer_")
        yield f".It Li {name}{{{','.join(more)}}}" if more else f".It Li {name}"
        yield family.help
    yield ".El"


LISTS = {
    "columns of top": columns_of_top,
    "sort keys": sort_keys,
    "fields of top": fields_of_top,
    "metrics": metrics,
}


def filled(manual: str) -> str:
    """Return the manual with its lists as they follow from the tables."""

    def of(found: re.Match[str]) -> str:
        return "\n".join([found[1], *LISTS[found[2]](), found[3]])

    return re.sub(r'(?s)(\.\\" Generated: ([\w ]+))\n.*?(\.\\" End)', of, manual)


def test_lists_of_the_manual_are_those_of_the_tables(request: pytest.FixtureRequest) -> None:
    manual = MANUAL.read_text()
    assert sorted(re.findall(r"Generated: (.*)", manual)) == sorted(LISTS)
    compare(MANUAL, filled(manual), request.node.nodeid)


def test_column_that_the_manual_lacks_is_found() -> None:
    manual = filled(MANUAL.read_text())
    assert filled(manual.replace(".It CUSHION\n", "")) == manual
