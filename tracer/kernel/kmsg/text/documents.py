"""Logs that are one document of JSON, or several: answers of the interfaces of log stores, as
`aws logs get-log-events`, `gcloud logging read --format=json`, a search of Elasticsearch, and jq print them.

Each object that stands for a message becomes a line of its own, so that what reads lines reads it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from tracer.kernel.kmsg.text import shapes

_BEGINS: Final = re.compile(rb"\s{0,64}(?:\[\s{0,64}[\[{]|\{\s{0,64}\")")
_MOST_BYTES: Final = 64 << 20
"""The size from which a document is read as text: as objects, it takes about ten times as many bytes."""

_MOST_DEPTH: Final = 12
_PAIR: Final = 2
_SPACE: Final = re.compile(r"[\s,]*")


def as_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a log; if it consists of documents, a line of JSON for each message instead.

    A log in which each line is an object of one message stays as it is, and so does what is no JSON.
    """
    first = next(chunks, b"")
    if _BEGINS.match(first) is None or _is_message(first):
        yield from chain([first], chunks)
        return
    text = first
    while len(text) <= _MOST_BYTES and (chunk := next(chunks, b"")):
        text += chunk
    found = _documents(text) if len(text) <= _MOST_BYTES else []
    messages = [json.dumps(message).encode() + b"\n" for message in _messages(found, 0)]
    yield from messages or chain([text], chunks)


def _is_message(first: bytes) -> bool:
    """Return whether the first line of a log is an object of at most one message."""
    try:
        value = json.loads(first.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and next(_messages(value, 0), None) is None


def _documents(text: bytes) -> list[Any]:
    """Return the values of a text of JSON; an empty list if it is anything else."""
    words, decoder, found = text.decode("utf-8", "surrogateescape"), json.JSONDecoder(), list[Any]()
    at = _end_of_space(words, 0)
    while at < len(words):
        try:
            value, at = decoder.raw_decode(words, at)
        except (ValueError, RecursionError):
            return []
        found.append(value)
        at = _end_of_space(words, at)
    return found


def _end_of_space(words: str, at: int) -> int:
    found = _SPACE.match(words, at)
    return at if found is None else found.end()


def _messages(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the objects of each list in which an object has the words of a report, and the pairs of a time
    and a text, as such objects. What is within these objects belongs to a message."""
    inner = list[Any]()
    if isinstance(value, list):
        if all(_is_pair(one) for one in value):
            yield from ({"time": time, "line": line} for time, line in value)  # the values of Loki
        elif any(_has_text(one, 0) for one in value):
            yield from (one for one in value if isinstance(one, dict))
        else:
            inner = value
    elif isinstance(value, dict):
        inner = [*value.values()]
    if depth < _MOST_DEPTH:
        for one in inner:
            yield from _messages(one, depth + 1)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == _PAIR and all(isinstance(one, str) for one in value)


def _has_text(value: Any, depth: int) -> bool:
    """Return whether an object, or an object in it, has words that begin a message of the kernel."""
    if isinstance(value, str):
        return shapes.is_of_report(value)
    is_object = isinstance(value, dict) and depth < _MOST_DEPTH
    return is_object and any(_has_text(one, depth + 1) for one in value.values())
