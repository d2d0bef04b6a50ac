"""Painting: only lines that changed are sent, in the colours that are allowed.

The output of a verb keeps its colours, and nothing else of its sequences.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color
from rich.style import Style
from rich.text import Text
from support.contrast import contrast

from tracer.render.terminal.console import to_text
from tracer.render.words.escape import visible
from tracer.top.screen.cells import Line, Span, padded
from tracer.top.screen.paint import STYLES, Painter, lines_of_output

FRAME: list[Line] = [(Span("head", "head"),), (Span("a", "kill"), Span("b")), (Span("foot", "dim"),)]


def test_lines_that_did_not_change_are_not_sent_again() -> None:
    painter = Painter(colour=True)
    assert painter.paint(FRAME).count("\x1b[") > 3
    assert painter.paint(FRAME) == ""
    changed = [*FRAME[:1], (Span("new"),), *FRAME[2:]]
    assert painter.paint(changed) == "\x1b[2;1Hnew"
    painter.forget()
    assert "\x1b[1;1H" in painter.paint(changed)


def test_smaller_and_larger_screens_are_painted_whole() -> None:
    painter = Painter(colour=True)
    painter.paint(FRAME)
    assert painter.paint(FRAME[:1]) == ""
    assert "\x1b[2;1H" in painter.paint(FRAME)


@pytest.mark.parametrize("style", STYLES)
def test_without_colour_no_colour_is_sent(style: str) -> None:
    line = Painter(colour=False).line((Span("x", style),))
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|38|4[0-7]|48)[\d;]*m", line)


@pytest.mark.parametrize("name", ["head", "sorted", "warn", "kill"])
@pytest.mark.parametrize("background", ["#ffffff", "#000000"])
def test_colours_can_be_read_on_light_and_dark_backgrounds(name: str, background: str) -> None:
    style = Style.parse(STYLES[name])
    assert style.color is not None  # the terminal's own foreground may be black or white
    behind = style.bgcolor or Color.parse(background)
    assert contrast(style.color.get_truecolor().hex, behind.get_truecolor().hex) >= 3


def test_selection_is_visible_without_colour() -> None:
    assert Painter(colour=False).line((Span("x", "selected"),)) == "\x1b[7mx\x1b[0m"


def test_padding_goes_on_with_the_ground_of_the_last_style() -> None:
    assert padded((Span("ab", "head"),), 4) == (Span("ab", "head"), Span("  ", "head"))
    assert padded((Span("漢字", "kill"),), 3) == (Span("漢 ", "kill"),)
    assert padded((), 2) == (Span("  "),)


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
