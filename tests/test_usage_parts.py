"""The parts of usage: they have the names of `PARTS`, add up to usage, and are never negative."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.categories import PARTS
from tracer.schema import MEMORY_STAT_BYTES
from tracer.usage_parts import usage_parts

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
