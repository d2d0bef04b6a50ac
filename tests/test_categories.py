"""The table of categories, and the C header that is generated from it."""

from __future__ import annotations

from pathlib import Path

from tracer.categories import CATEGORIES
from tracer.kernel.struct_header import ENUMERATORS
from tracer.wire.category_header import header_text

HEADER = Path(__file__).parents[1] / "bpf" / "categories.h"


def test_c_header_is_generated_from_the_table() -> None:
    assert HEADER.read_text() == header_text(), "run make headers"


def test_each_category_has_a_counter_of_its_own() -> None:
    items = [item for category in CATEGORIES for item in category.items]
    assert len(set(items)) == len(items) >= len(CATEGORIES)
    assert all(category.items for category in CATEGORIES)
    assert set(items) <= set(ENUMERATORS)
