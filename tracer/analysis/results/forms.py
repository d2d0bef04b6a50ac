"""Result records as values of JSON documents, and as text and HTML for `repr` and notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, Final

from tracer.schema import LIMITS, UNLIMITED_BYTES


def as_object(record: Any) -> dict[str, Any]:
    """Return a frozen dataclass as a JSON object: each field by `as_json`, limits by `limit_columns`."""
    found: dict[str, Any] = {}
    for name in names(record.__class__):
        value = getattr(record, name)
        if name in LIMITS:
            found |= limit_columns(value, name)
        else:
            found[name] = as_json(value)
    return found


@cache
def names(record: type) -> tuple[str, ...]:
    """Return the fields of a dataclass in the order of its object: its own, then those that it inherits."""
    inherited = {item.name for base in record.__bases__ if is_dataclass(base) for item in fields(base)}
    return tuple(sorted((item.name for item in fields(record)), key=inherited.__contains__))


def limit_columns(limit_bytes: int | None, name: str = "limit_bytes") -> dict[str, Any]:
    """Return the JSON members of a limit: the limit, null if none is set, and its flag (`schema.LIMITS`),
    null if the limit is not known."""
    is_limited = None if limit_bytes is None else limit_bytes < UNLIMITED_BYTES
    return {name: limit_bytes if is_limited else None, LIMITS[name]: is_limited}


_PLAIN: Final = frozenset({str, int, float, bool, NoneType})


def as_json(value: Any) -> Any:
    """Return the value of a field in JSON; times have microseconds, as in meta.json."""
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value):
        return as_object(value)
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


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
