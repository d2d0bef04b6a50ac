"""The table of quantities: what it names exists, and its names are those that users know."""

from __future__ import annotations

import re
from collections import Counter

from tracer.analysis.views.evictions import COUNTS
from tracer.analysis.views.timeline import COLUMNS
from tracer.live.now import CgroupNow
from tracer.quantities import EVICTIONS_COLUMNS, QUANTITIES, SORT_KEYS, TIMELINE_COLUMNS, TOP_COLUMNS


def test_names_and_keys_are_distinct() -> None:
    names = [one.name for one in QUANTITIES]
    fields = [column.field for _, column in TOP_COLUMNS]
    rows = [column.field for column in EVICTIONS_COLUMNS]
    for given in (names, fields, SORT_KEYS, rows):
        assert [name for name, count in Counter(given).items() if count > 1] == []


def test_sources_are_attributes_of_a_cgroup() -> None:
    assert [one.name for one in QUANTITIES if one.source and not hasattr(CgroupNow, one.source)] == []


def test_each_count_of_evictions_is_in_a_column() -> None:
    assert {column.count for column in EVICTIONS_COLUMNS} == set(COUNTS)


def test_columns_of_the_timeline_are_columns_of_its_rows() -> None:
    drawn = {"waited_ms", "psi_some_ms"}  # the drawing adds them
    assert {column.field for column in TIMELINE_COLUMNS} - set(COLUMNS) == drawn


def test_keys_and_fields_of_top_are_those_that_users_know() -> None:
    assert {column.key: column.field for _, column in TOP_COLUMNS} == {
        "usage": "usage_bytes",
        "limit": "limit_bytes",
        "held": "held_bytes",
        "cache": "cache_bytes",
        "cushion": "cushion_bytes",
        "swap": "swap_bytes",
        "charge": "charge_bytes_per_s",
        "add": "add_bytes_per_s",
        "evict": "evict_bytes_per_s",
        "refault": "refault_bytes_per_s",
        "stall": "reclaim_stall_percent",
        "psi": "psi_some_percent",
        "left": "seconds_to_kill",
    }
    assert all({one.missing_with} <= {"", *SORT_KEYS} for _, one in TOP_COLUMNS)


def test_meanings_are_phrases_that_a_text_can_continue() -> None:
    assert [one.name for one in QUANTITIES if one.meaning.endswith(".") or one.meaning[0].isupper()] == []


def test_page_cache_read_again_has_one_name() -> None:
    """`AGAIN/s` is the same name in the 7 cells that `top` has; the key of `--sort` is fixed."""
    by_name = {one.name: one for one in QUANTITIES}
    heads = (by_name["added_again"].timeline, by_name["returned"].evictions, by_name["refaulted"].top)
    assert [one and one.head for one in heads] == ["read again", "read again", "AGAIN/s"]
    shown = [one.meaning for one in QUANTITIES]
    shown += [one.note for one in TIMELINE_COLUMNS] + [one.note for one in EVICTIONS_COLUMNS]
    assert not [words for words in shown if re.search(r"refault|\bback\b|return", words)]
