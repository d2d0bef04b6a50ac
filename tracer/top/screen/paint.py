"""Lines as escape sequences, of which only changed ones are sent again, and the output of a verb as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.ansi import AnsiDecoder
from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text

from tracer.categories import LAYERS
from tracer.render.words.escape import visible
from tracer.top.screen.cells import Line, Span

STYLES: Final[Mapping[str, str]] = {
    "": "none",
    "title": "bold",
    "head": "bold color(255) on color(236)",
    "sorted": "bold color(220) on color(236)",
    "selected": "reverse",
    "dim": "dim",
    "warn": "color(136)",
    "kill": "bold color(196)",
    **{layer.name: layer.terminal for layer in LAYERS},
}
"""Name of a style -> its definition for rich. Any other name is itself a definition. Without colour, only
attributes remain: bold, dim, reverse, underline. Each colour can be read on light and dark
backgrounds."""

_ATTRIBUTES: Final = ("bold", "dim", "reverse", "underline")
_PLAIN: Final = {"head": "underline", "sorted": "bold underline"}


class Painter:
    """Turns each frame into the sequences that change the previous frame into it."""

    def __init__(self, *, colour: bool) -> None:
        self.is_coloured = colour
        self._styles: dict[str, Style] = {}
        self._system = ColorSystem.EIGHT_BIT
        self._before: list[str] = []

    def forget(self) -> None:
        """Make `paint` return the whole next frame: the screen was cleared, or has another size."""
        self._before = []

    def paint(self, lines: Sequence[Line]) -> str:
        """Return the escape sequences for a frame, whose lines are as wide as the screen."""
        texts = [self.line(line) for line in lines]
        before = self._before + [""] * (len(texts) - len(self._before))
        changed = [
            f"\x1b[{number};1H{text}"
            for number, (text, old) in enumerate(zip(texts, before, strict=False), 1)
            if text != old
        ]
        self._before = texts
        return "".join(changed)

    def line(self, line: Line) -> str:
        """Return a line with the sequences of its styles."""
        return "".join(
            self._style(style).render(text, color_system=self._system) if style else text
            for text, style in line
        )

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            self._styles[name] = Style.parse(_definition(name, self.is_coloured))
        return self._styles[name]


def _definition(name: str, colour: bool) -> str:
    definition = STYLES.get(name, name)
    if colour:
        return definition
    if name in _PLAIN:
        return _PLAIN[name]
    return " ".join(word for word in definition.split() if word in _ATTRIBUTES) or "none"


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
