"""Technical terms of the post-mortem are explained in docs/glossary.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
GLOSSARY = (TOP / "docs/glossary.md").read_text(encoding="utf-8")
EXPLAINED = re.findall(r"^\*\*(.+)\*\*\n: ", GLOSSARY, flags=re.MULTILINE)
TECHNICAL = (
    *("anon", "badness", "cache", "cgroup", "charge", "evicted", "gfp", "limit owner", "order", "page"),
    *("page tables", "priority", "reclaim", "refault", "RSS", "shmem", "slab", "unevictable", "usage"),
    *("working set", "writeback", "oom_score_adj", "stall", "group kill", "folio", "dying cgroup", "thrash"),
)


def test_glossary_entries_are_in_alphabetical_order() -> None:
    assert [word.casefold() for word in EXPLAINED] == sorted(word.casefold() for word in EXPLAINED)


@pytest.mark.parametrize("word", TECHNICAL)
def test_term_is_in_the_glossary(word: str) -> None:
    assert any(word in re.split(r", | \(|\)", entry) for entry in EXPLAINED)
