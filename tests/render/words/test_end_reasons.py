from __future__ import annotations

import pytest

from tracer.render.words.end_reasons import end_in_words
from tracer.trace.recording_ends import COMMAND_ENDED, DURATION


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (COMMAND_ENDED, "when its command ended"),
        (DURATION, "after the given time (-d)"),
        ("SIGTERM", "by SIGTERM"),
        ("\x1b[31m", r"\x1b[31m"),
        ("SIG\x1b[31m", r"by SIG\x1b[31m"),
    ],
)
def test_end_reason_of_a_trace_is_in_words_and_escaped(reason: str, words: str) -> None:
    assert end_in_words(reason) == words
