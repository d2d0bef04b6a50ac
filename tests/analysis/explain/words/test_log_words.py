"""The words of differences between a trace and its kernel log."""

from __future__ import annotations

import inspect
import re

from tracer.analysis.explain.words.log_words import DIFFERENCES, difference
from tracer.analysis.kernel_log import comparison
from tracer.analysis.kernel_log.comparison import Difference


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
