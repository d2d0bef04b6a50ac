"""Differences between kernels that are found by the existence of enumerators and functions."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.kernel import struct_header

NODE = {"NR_LRU_BASE": 0, "NR_FILE_PAGES": 19}
NODE_END = {"NR_VM_NODE_STAT_ITEMS": 69}
STEAL = {"PGSTEAL_DIRECT": 50}


class Enumerators:
    """A BTF that has only enumerators."""

    def __init__(self, enumerators: dict[str, int]) -> None:
        self.enumerators = enumerators


@pytest.mark.parametrize(
    ("enumerators", "expected"),
    [
        (NODE | STEAL | NODE_END, True),  # since v7.1
        (NODE | NODE_END | STEAL, False),  # before: in vm_event_item, with a number that both enums have
        (STEAL | NODE | NODE_END, False),
        (NODE | NODE_END, False),
        ({}, False),
    ],
)
def test_reclaim_counts_are_node_stats_by_enum(enumerators: dict[str, int], expected: bool) -> None:
    btf: Any = Enumerators(enumerators)
    assert struct_header.reclaim_counts_are_node_stats(btf) is expected


class Functions:
    """A BTF that has only functions."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def function_arguments(self, name: str) -> tuple[str, ...] | None:
        return ("page",) if name in self.names else None


@pytest.mark.parametrize(
    ("names", "expected"), [(("hugetlb_basepage_index",), True), (("hugetlb_fault",), False)]
)
def test_hugetlb_index_counts_huge_pages_with_conversion(names: tuple[str, ...], expected: bool) -> None:
    btf: Any = Functions(*names)
    assert struct_header.hugetlb_index_is_of_huge_pages(btf) is expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), False),
        (("reparent_memcg_lruvec_state_local",), True),
        (("reparent_memcg_lruvec_state_local", "reparent_memcg1_lruvec_state_local"), False),
    ],
)
def test_slab_counters_pass_to_parent_unless_for_v1_alone(names: tuple[str, ...], expected: bool) -> None:
    btf: Any = Functions(*names)
    assert struct_header.slab_counters_pass_to_parent(btf) is expected
