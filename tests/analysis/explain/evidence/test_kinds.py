"""Kinds of evidence: the names of their numbers, and the tables of their source."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic.findings import findings, grew, made_of

from tracer.analysis import explain
from tracer.analysis.explain.evidence.kinds import COMPOSITION, KINDS, OF_SUSPECTS, found, on_suspect
from tracer.analysis.results.kill import Evidence, Suspect
from tracer.schema import TABLES

DOCUMENT = (Path(__file__).parents[4] / "docs/causes.md").read_text(encoding="utf-8")
LEDGER, LOG = ("charge", "samples"), ("kernel_log",)
MIXED = {
    "anon": LOG,
    "shmem": ("samples",),
    "file_dirty": ("samples",),
    "writeback": LEDGER,
    "usage": ("oom",),
}
SHARE = {"held_bytes": 1, "usage_bytes": 2}
HELD = {"anon_rss_bytes": 9, "rss_bytes": None, "limit_bytes": 10}
THREADS = {"comm": "sh", "pid": 41, "threads": 99, "anon_rss_bytes": 1}
SURE = findings(made_of(anon=97), grew(anon=97))


def test_source_of_every_kind_is_a_table_of_a_trace() -> None:
    tables = {table for kind in KINDS.values() for table in kind.source}
    assert tables - {COMPOSITION} <= set(TABLES)
    assert all(kind.source for name, kind in KINDS.items() if name not in OF_SUSPECTS)


def test_every_kind_is_found_somewhere() -> None:
    files = [path for path in Path(explain.__path__[0]).rglob("*.py") if path.name != "kinds.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []


def test_found_with_other_numbers_raises_type_error() -> None:
    with pytest.raises(TypeError, match="evidence of kind growth has"):
        found(SURE, "growth", part="anon", grown_bytes=1)


def test_found_leaves_out_a_number_that_is_not_known() -> None:
    assert dict(found(SURE, "swap_in_use", used_bytes=1, allowed_bytes=None).numbers) == {"used_bytes": 1}


@pytest.mark.parametrize(
    ("changes", "kind", "numbers", "source"),
    [
        ({}, "clean_cache_left", {"held_bytes": 1}, ("samples",)),
        ({"origins": {"file_clean": LEDGER}}, "clean_cache_left", {"held_bytes": 1}, LEDGER),
        ({"origins": {"file_clean": LOG, "anon": LEDGER}}, "clean_cache_left", {"held_bytes": 1}, LOG),
        ({"origins": MIXED}, "part_of_usage", SHARE | {"part": "anon"}, ("oom", "kernel_log")),
        ({"origins": MIXED}, "part_of_usage", SHARE | {"part": "unwritten"}, ("samples", "charge", "oom")),
        ({"origins": MIXED}, "also_in_usage", SHARE | {"part": "shmem"}, ("samples", "oom")),
        ({"origins": MIXED}, "unwritten_cache", SHARE, ("samples", "charge", "oom")),
        ({}, "restricted_request", {"gfp": 1}, ("oom",)),
        ({"kmsg_fields": ("trigger.order",)}, "restricted_request", {"gfp": 1}, ("oom",)),
        ({"kmsg_fields": ("trigger.gfp",)}, "restricted_request", {"gfp": 1}, LOG),
        ({"kmsg_fields": ("candidates",)}, "many_processes", {"processes": 9, "largest_bytes": 1}, LOG),
        ({"kmsg_fields": ("limit_owner",)}, "killed_held_limit", HELD, ("oom", "kernel_log")),
        ({"kmsg_fields": ("limit_owner", "victims.anon_rss_bytes")}, "killed_held_limit", HELD, LOG),
        ({"kmsg_fields": ("victims.anon_rss_bytes",)}, "many_threads", THREADS, ("oom", "kernel_log")),
        ({"kmsg": "only"}, "writer_waits", {"waited_ms": 1.5}, ("kernel_log",)),
    ],
)
def test_source_lists_the_tables_read_for_this_kill(
    changes: dict[str, Any], kind: str, numbers: dict[str, Any], source: tuple[str, ...]
) -> None:
    assert found(replace(SURE, **changes), kind, **numbers).source == source


def test_on_suspect_carries_the_numbers_behind_its_weight() -> None:
    reason = Evidence("full_swap", {"used_bytes": 7}, ("charge",))
    assert on_suspect("other_cause", Suspect("swap_exhausted", 0.5, reason)) == Evidence(
        "other_cause",
        {"cause": "swap_exhausted", "weight": 0.5, "reason": "full_swap", "used_bytes": 7},
        ("charge",),
    )


def test_document_lists_every_kind_with_its_numbers_and_tables() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \| ([^|]*) \|$", DOCUMENT, flags=re.MULTILINE)
    listed = {kind: (re.findall(r"`(\w+)`", numbers), tables) for kind, numbers, tables in rows}
    assert list(listed) == list(KINDS)
    for name, kind in KINDS.items():
        numbers, tables = listed[name]
        assert tuple(numbers) == kind.numbers, name
        assert tuple(re.findall(r"`?(\w+)`?", tables)) == kind.source or name in OF_SUSPECTS, name
