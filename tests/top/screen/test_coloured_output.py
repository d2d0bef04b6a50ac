"""The output of a verb on the screen: its colours stay, and nothing else of its sequences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from tracer.render.terminal.console import to_text
from tracer.render.words.escape import visible
from tracer.top.screen.cells import Span
from tracer.top.screen.coloured_output import lines_of_output
from tracer.top.screen.paint import Painter


def test_colours_of_a_verb_are_sent_again() -> None:
    text = Text("Cause: ").append("memory grew", "bold color(208)").append(" (", "dim").append("x)")
    lines = lines_of_output(to_text([text, "plain"], columns=80, colour=True).rstrip())
    assert lines == (
        (Span("Cause: "), Span("memory grew", "bold color(208)"), Span(" (", "dim"), Span("x)")),
        (Span("plain"),),
    )
    painted = Painter(colour=True).line(lines[0])
    assert "\x1b[1;38;5;208mmemory grew\x1b[0m" in painted
    assert "38;5" not in Painter(colour=False).line(lines[0])


def test_links_and_other_sequences_are_left_out() -> None:
    hostile = "a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\c\x1b[2Jd\x1b[10;10He\x07f\x1b]0;title\x1b\\g"
    ((*spans,),) = lines_of_output(hostile)
    assert "".join(span.text for span in spans) == "abcdefg"
    assert not any(span.style for span in spans)


@given(st.text(st.sampled_from("ab \x1b[]0;1m38520H\\\x07\r\t\n\x9b\u202e\u2028漢"), max_size=40))
def test_whatever_comes_is_printable(output: str) -> None:
    painter = Painter(colour=False)
    for line in lines_of_output(output):
        for span in line:
            assert span.text == visible(span.text)
        painter.line(line)
