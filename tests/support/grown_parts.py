"""Comparison of what grew with a program that grows in two functions of known parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tracer.analysis.results.memory import CodeFrame, GrownCode


def assert_parts(found: Sequence[GrownCode], of_seven_tenths: str, of_three_tenths: str) -> None:
    """Assert that 70 % of the growth is in one function and 30 % in another; each is `function [module]` or
    `function [file:line]`. The difference may be half as large again as the error that is stated."""
    weights: Counter[str] = Counter()
    for one in found:
        weights[_shown(one.frames[0])] += one.bytes
    whole = sum(one.bytes / one.share for one in found) / max(len(found), 1)
    most = 1.5 * max(one.share_error for one in found)
    assert abs(weights[of_seven_tenths] / whole - 0.7) < most, weights
    assert abs(weights[of_three_tenths] / whole - 0.3) < most, weights


def _shown(frame: CodeFrame) -> str:
    return f"{frame.function} [{frame.module or f'{frame.file}:{frame.line}'}]"
