"""Lines of a screen: texts with the names of their styles."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len, set_cell_size


class Span(NamedTuple):
    """A text in one style: a name in `paint.STYLES`, a definition of rich such as `bold red`, or empty."""

    text: str
    style: str = ""


Line = tuple[Span, ...]

ON_A_GROUND = {"head": "head", "sorted": "head", "selected": "selected"}
"""Style whose background extends to the end of the line -> the style of the rest of the line."""


class Size(NamedTuple):
    """The cells of a screen."""

    columns: int
    lines: int


def padded(line: Line, cells: int) -> Line:
    """Return the line with exactly so many cells."""
    spans: list[Span] = []
    rest = cells
    for span in line:
        text = span.text
        length = len(text) if text.isascii() else cell_len(text)  # `visible` has removed control characters
        if length > rest:
            spans.append(Span(set_cell_size(span.text, rest), span.style))
            return tuple(spans)
        spans.append(span)
        rest -= length
    if not rest:
        return tuple(spans)
    style = ON_A_GROUND.get(spans[-1].style, "") if spans else ""
    return (*spans, Span(" " * rest, style))
