"""The table of kinds of memory, and the header and documents that repeat it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.results.memory import COMPOSITION_PARTS
from tracer.categories import CATEGORIES, COUNTERS, LAYER_BY_NAME, LAYERS, PARTS, Counter, usage_parts
from tracer.kernel.cgroups.memory_files import RECLAIM_PARTS
from tracer.kernel.struct_header import ENUMERATORS
from tracer.schema import MEMORY_STAT_BYTES
from tracer.wire.c_headers import category_header

ROOT = Path(__file__).parents[1]


def test_c_header_equals_what_the_table_generates() -> None:
    assert (ROOT / "bpf" / "categories.h").read_text() == category_header(), "run make headers"


def test_each_category_has_counter_items_of_its_own() -> None:
    items = [item for category in CATEGORIES for item in category.items]
    assert len(set(items)) == len(items) >= len(CATEGORIES)
    assert all(category.items for category in CATEGORIES)
    assert set(items) <= set(ENUMERATORS)


def test_category_numbers_have_no_gap() -> None:
    assert [category.number for category in CATEGORIES] == list(range(len(CATEGORIES)))


def test_parts_are_those_of_the_composition_and_have_a_layer() -> None:
    assert tuple(part.name for part in PARTS) == COMPOSITION_PARTS
    assert {part.layer for part in PARTS} == set(LAYER_BY_NAME)
    assert {part.counter for part in PARTS if part.counter} <= {counter.name for counter in COUNTERS}


@pytest.mark.parametrize("attribute", ["name", "glyph", "terminal", "hex"])
def test_layers_differ_in_each_way_of_drawing(attribute: str) -> None:
    assert len({getattr(layer, attribute) for layer in LAYERS}) == len(LAYERS)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_trace_format_names_the_counters_of_a_category(category: Counter) -> None:
    text = (ROOT / "docs" / "trace-format.md").read_text()
    section = text[text.index("| category | kernel counter |") :].partition("\n\n")[0]
    rows = {
        name: set(re.findall(r"\b(?:NR|MEMCG)_\w+", row.group(2)))
        for row in re.finditer(r"^\| ([a-z_, ]+) \| (.*) \|$", section, re.MULTILINE)
        for name in row.group(1).split(", ")
    }
    assert set(rows) - {"category"} == {one.name for one in CATEGORIES}
    assert set(category.items) <= rows[category.name]


def test_kernels_document_names_the_counters_that_v1_does_not_print() -> None:
    text = (ROOT / "docs" / "kernels.md").read_text()
    row = re.search(r"^\| memory\.stat of (.*) \| no \| yes \|$", text, re.MULTILINE)
    assert row is not None
    named = {words.replace(" ", "_") for words in row.group(1).split(", ")}
    absent = {category.name for category in CATEGORIES if category.v1 is None} - {"kernel"}
    assert named == {"slab" if name.startswith("slab_") else name for name in absent} | RECLAIM_PARTS.keys()


SIZES = st.fixed_dictionaries({name: st.none() | st.integers(0, 2**50) for name in MEMORY_STAT_BYTES})


@given(sizes=SIZES, total=st.integers(0, 2**50))
def test_usage_parts_of_any_sizes_add_up_to_usage(sizes: dict[str, int | None], total: int) -> None:
    parts, unknown = usage_parts(sizes, total, lambda name: f"no {name}")
    assert list(parts) == [part.name for part in PARTS]
    assert sum(size or 0 for size in parts.values()) == total
    assert all(size is None or size >= 0 for size in parts.values())
    assert {name for name, size in parts.items() if size is None} <= set(unknown)


def test_usage_parts_of_unknown_usage_has_no_other() -> None:
    parts, unknown = usage_parts(dict.fromkeys(MEMORY_STAT_BYTES, 7), None, lambda _: "")
    assert parts["other"] is None
    assert {"other", "total"} <= set(unknown)
