"""A title and labelled facts as text and as HTML, for `repr` and notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence

Facts = Sequence[tuple[str, str]]


def as_text(title: str, facts: Facts) -> str:
    """Return the title, and below it a line for each fact: its label and its value."""
    width = max((len(label) for label, _ in facts), default=0)
    return "\n".join([title, *(f"  {label:<{width}}  {value}" for label, value in facts)])


def as_html(title: str, facts: Facts) -> str:
    """Return the title and the facts as a table of HTML, escaped."""
    style = 'style="text-align:left"'
    rows = "".join(
        f"<tr><th {style}>{html.escape(label)}</th><td {style}>{html.escape(value)}</td></tr>"
        for label, value in facts
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def printable(title: str, facts: Facts) -> tuple[str, Facts]:
    """Return both with unprintable characters escaped, since names of processes and cgroups may contain
    control sequences for a terminal."""
    return _printable(title), [(label, _printable(value)) for label, value in facts]


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
