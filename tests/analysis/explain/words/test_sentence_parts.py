"""The parts that sentences share."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest

from tracer.analysis.explain.measure.findings import FreeMemory, NoVictim, Shortage, ShortageKind
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.sentence_parts import DIFFERENCES, difference
from tracer.analysis.kernel_log import comparison
from tracer.analysis.kernel_log.comparison import Difference

MIB = 1 << 20


def test_every_kind_and_every_end_without_a_victim_has_words() -> None:
    assert set(sentence_parts.CLAUSES) == set(get_args(ShortageKind))
    assert set(sentence_parts.NO_VICTIM) == set(get_args(NoVictim))


@pytest.mark.parametrize(
    ("shortage", "advised"),
    [
        (Shortage("none_left", no_task_killable=True), "oom_score_adj -1000"),
        (Shortage("policy_constraint", no_task_killable=True), ""),
        (Shortage("none_left", constraint="cpuset"), "Allow more memory nodes"),
        (Shortage("none_left"), ""),
        (Shortage("slab", constraint="cpuset"), "slabtop"),
    ],
)
def test_advice_is_on_unkillable_processes_then_nodes_then_the_kind(shortage: Shortage, advised: str) -> None:
    assert advised in "".join(sentence_parts.shortage_advice(shortage))
    assert bool(sentence_parts.shortage_advice(shortage)) == bool(advised)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (FreeMemory(MIB, None), "; 1 MiB of the machine was free"),
        (
            FreeMemory(MIB, 9 * MIB, swap_bytes=0),
            "; 1 MiB of the machine's 9 MiB was free, and it has no swap",
        ),
        (
            FreeMemory(MIB, 9 * MIB, free_swap_bytes=0, swap_bytes=2 * MIB),
            "; 1 MiB of the machine's 9 MiB was free, and its swap of 2 MiB was full",
        ),
        (FreeMemory(MIB, 9 * MIB, free_swap_bytes=MIB, swap_bytes=2 * MIB), "'s 9 MiB was free"),
    ],
)
def test_clause_ends_with_free_memory_and_swap(free: FreeMemory, expected: str) -> None:
    assert sentence_parts.shortage_clause(Shortage("none_left", free=free)).endswith(expected)


def test_every_kind_of_difference_has_a_sentence() -> None:
    code = inspect.getsource(comparison)
    kinds = {*re.findall(r'(?:_unequal|_sizes|Difference)\(\s*"(\w+)"', code)}
    kinds |= {*re.findall(r'"(\w+_bytes)"', inspect.getsource(comparison._victim))}
    assert kinds == set(DIFFERENCES)


def test_sentences_have_both_numbers_and_the_process() -> None:
    assert difference(Difference("gfp", 0xCC0, 0x100)) == "gfp: 0xcc0, in the kernel log 0x100"
    names = Difference("comm", "{pid}", "b", 41)
    assert difference(names) == "the name of pid 41: {pid}, in the kernel log b"
    assert difference(Difference("usage_bytes", 1, 2)) == "usage: 1 bytes, in the kernel log 2"
