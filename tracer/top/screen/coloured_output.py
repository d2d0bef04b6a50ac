"""The output of another verb as lines of the screen, in its colours."""

from __future__ import annotations

from collections.abc import Iterator

from rich.ansi import AnsiDecoder
from rich.style import Style
from rich.text import Text

from tracer.render.words.escape import visible
from tracer.top.screen.cells import Line, Span


def lines_of_output(output: str) -> tuple[Line, ...]:
    """Return text with colours (sequences of SGR) as lines.

    Links, control characters and other sequences are left out.
    """
    decode = AnsiDecoder().decode_line
    return tuple(tuple(_spans(decode(line.expandtabs()))) for line in output.split("\n"))


def _spans(line: Text) -> Iterator[Span]:
    at = 0
    for span in line.spans:
        if span.start > at:
            yield Span(visible(line.plain[at : span.start]))
        style = span.style if isinstance(span.style, Style) else Style.parse(span.style)
        definition = str(style.update_link(None))
        yield Span(visible(line.plain[span.start : span.end]), "" if definition == "none" else definition)
        at = span.end
    if at < len(line.plain):
        yield Span(visible(line.plain[at:]))
