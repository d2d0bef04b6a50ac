"""The parts of the documents that follow from quantities, metric families and the help of options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.golden import compare
from support.manual_options import item, options

from tracer.metric_families import FAMILIES, PLACE_LABELS
from tracer.quantities import QUANTITIES, TOP_COLUMNS
from tracer.top.help_text import meaning

DOCS = Path(__file__).parents[1] / "docs"
MANUAL = DOCS / "memcg-tracer.1"
DOCUMENTS = [MANUAL, DOCS / "examples" / "evictions.md"]


def columns_of_top() -> Iterator[str]:
    yield ".Bl -tag -width CUSHION -compact"
    for quantity, column in TOP_COLUMNS:
        words = meaning(quantity)
        yield from (f".It {column.head}", f"{words[0].upper()}{words[1:]}.")
    yield ".El"


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


def columns_of_evictions() -> Iterator[str]:
    yield from ("", "| column | meaning |", "|---|---|")
    for one in QUANTITIES:
        if one.evictions is not None:
            yield f"| `{one.evictions.field}` | {one.meaning} |"
    yield ""


LISTS: dict[str, Callable[[], Iterator[str]]] = {
    "columns of evictions": columns_of_evictions,
    "columns of top": columns_of_top,
    "fields of top": fields_of_top,
    "metrics": metrics,
    **{f"option {verb} {name}": partial(item, context, option) for verb, name, context, option in options()},
}


def filled(document: str) -> str:
    """Return a document with its lists as they follow from the tables."""

    def of(found: re.Match[str]) -> str:
        return "\n".join([found[1], *LISTS[found[2]](), found[3]])

    return re.sub(r"(?ms)^(\S+ Generated: ([\w -]+\w).*?)$.*?^(\S+ End\b.*?)$", of, document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lists_of_a_document_are_those_of_the_tables(document: Path, request: pytest.FixtureRequest) -> None:
    compare(document, filled(document.read_text()), request.node.nodeid)


def test_each_list_is_in_a_document() -> None:
    found = [name for path in DOCUMENTS for name in re.findall(r"Generated: ([\w -]+\w)", path.read_text())]
    assert sorted(found) == sorted(LISTS)


def test_column_that_the_manual_lacks_is_found() -> None:
    manual = filled(MANUAL.read_text())
    assert filled(manual.replace(".It CUSHION\n", "")) == manual


def test_help_of_an_option_that_the_manual_has_otherwise_is_found() -> None:
    manual = filled(MANUAL.read_text())
    stop = "Stop after this time, such as 90s, 5m or 1.5h; a number alone is seconds."
    assert manual.count(stop) == 1
    assert filled(manual.replace(stop, "End after this time.")) == manual
