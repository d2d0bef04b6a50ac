"""The outcome of a run at another limit, in words."""

from __future__ import annotations

import pytest

from tracer.analysis.results.outcome import AtLimit
from tracer.render.words.limit_outcomes import in_words

MIB = 1 << 20


@pytest.mark.parametrize(
    ("again", "words"),
    [
        ((12 * MIB, 14 * MIB), "survives, and reads 12 MiB to 14 MiB again"),
        ((0, 14 * MIB), "survives, and reads at most 14 MiB again"),
        ((None, 14 * MIB), "survives, and reads at most 14 MiB again"),
        ((12 * MIB, None), "survives, and reads at least 12 MiB again"),
        ((0, 0), "survives"),
        ((None, None), "survives"),
    ],
)
def test_what_is_read_again_has_the_ends_that_are_known(
    again: tuple[int | None, int | None], words: str
) -> None:
    assert in_words(AtLimit(64 * MIB, 0, "survives", "it fits", again)) == words
