"""The sentences of ranges; tests/analysis/explain/sizing/ reads them with numbers."""

from __future__ import annotations

import ast
from string import Formatter

from support.recorded import TRACES

from tracer.analysis.explain.sizing.kill_range import Range, ground
from tracer.analysis.explain.words import advice

MIB = 1 << 20
SIZING = TRACES.parent / "tracer/analysis/explain/sizing"
CALLS = [
    node
    for path in sorted(SIZING.glob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "ground"
]
KINDS = {node.args[0].value: node for node in CALLS if isinstance(node.args[0], ast.Constant)}


def test_every_ground_has_a_sentence_and_every_sentence_a_ground() -> None:
    assert set(KINDS) == set(advice._GROUNDS) | set(advice._PACES)


def test_numbers_of_grounds_are_those_of_their_sentences() -> None:
    for kind, template in advice._GROUNDS.items():
        given = {keyword.arg for keyword in KINDS[kind].keywords}
        assert given == {field for _, field, _, _ in Formatter().parse(template) if field}, kind
        assert all(str(name).endswith(("_bytes", "_share")) for name in given), kind


def test_sentences_have_numbers_by_their_units() -> None:
    basis = (ground("room_for_cache", cache_bytes=3 * MIB), ground("reclaim_cost", cost_share=0.123))
    grown = {
        "grown_bytes": 10 * MIB,
        "span_s": 2.0,
        "lost_s": 0.0,
        "lost_to": "thrashing",
        "resolution_s": 0.0,
    }
    found = advice.sized(Range((MIB, None), basis, ground("growth", **grown)))
    assert found.min_limit_bytes == (MIB, None)
    assert found.basis == (
        "The upper end has room for 3 MiB of page cache, since some was read again.",
        "At the upper end, reclaim still costs about 12 % of the tasks' time.",
    )
    assert found.pace == "At this growth (10 MiB in 2 s), each extra 100 MiB of limit buys 20 s."
    slow = advice.sized(Range(None, (), ground("growth_in_files", left_bytes=MIB, **grown | {"lost_s": 1})))
    assert slow.pace == (
        "Memory grew by 10 MiB in 2 s, without 1 s in which tasks hardly ran, most of it in shared memory "
        "whose files have a size: 1 MiB of them was not touched."
    )
    assert advice.sized(Range()).pace == ""
