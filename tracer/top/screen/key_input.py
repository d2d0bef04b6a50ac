"""Turns bytes of a terminal into names of keys."""

from __future__ import annotations

import codecs
from typing import Final

ESCAPE: Final = "esc"

_MOST_PENDING: Final = 32
"""A longer sequence is not a key. Its start is dropped, so that a flood of bytes takes no memory."""

_FINAL: Final = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "M": "enter",
}  # fmt: skip
_NUMBERED: Final = {1: "home", 3: "delete", 4: "end", 5: "pgup", 6: "pgdn", 7: "home", 8: "end"}
_CONTROLS: Final = {
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\t": "tab", "\x0c": "redraw",
    "\x02": "pgup", "\x06": "pgdn", "\x10": "up", "\x0e": "down",
}  # fmt: skip
"""Control character -> key, including the ones of Emacs and less for terminals without arrows."""


class KeyInput:
    """Finds the keys in the bytes of a terminal, however they are split into reads.

    A key is a printable character, or one of: up down left right home end pgup pgdn enter backspace delete
    tab esc redraw. Sequences of other keys and of a mouse are ignored.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    @property
    def is_pending(self) -> bool:
        """Return whether a sequence has begun. If nothing follows soon, it was the key Esc: call `flush`."""
        return bool(self._pending)

    def feed(self, read: bytes) -> list[str]:
        """Return the keys that are complete with these bytes."""
        text = self._pending + self._decoder.decode(read)
        self._pending = ""
        keys: list[str] = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                keys += _plain(text[at])
                at += 1
                continue
            end = _end_of_sequence(text, at)
            if end is None:
                self._pending = text[at:]
                break
            keys += _sequence(text[at:end])
            at = end
        return keys

    def flush(self) -> list[str]:
        """Return the keys of an incomplete sequence: Esc, and the characters after it."""
        pending, self._pending = self._pending, ""
        return [ESCAPE, *(key for one in pending[1:] for key in _plain(one))] if pending else []


def _plain(character: str) -> list[str]:
    if (named := _CONTROLS.get(character)) is not None:
        return [named]
    return [character] if character.isprintable() and character != "\ufffd" else []


def _end_of_sequence(text: str, at: int) -> int | None:
    """Return the end of the sequence that begins with ESC at `at`; None: it is incomplete (ECMA-48, 5.4)."""
    if at + 1 >= len(text):
        return None
    if text[at + 1] == "O":  # SS3: one more character
        return at + 3 if at + 3 <= len(text) else None
    if text[at + 1] != "[":
        return at + 1 if text[at + 1] == "\x1b" else at + 2
    for place in range(at + 2, min(len(text), at + _MOST_PENDING)):
        if "\x40" <= text[place] <= "\x7e":
            return place + 1
        if not "\x20" <= text[place] <= "\x3f":  # not part of a sequence, which ends before it
            return place
    return None if len(text) < at + _MOST_PENDING else at + _MOST_PENDING


def _sequence(text: str) -> list[str]:
    """Return the keys of a complete sequence, if any. Shift, Ctrl and Alt make no difference."""
    if text == "\x1b":
        return [ESCAPE]
    if text[1] not in "[O":
        return [ESCAPE, *_plain(text[1])]
    last, numbers = text[-1], text[2:-1].split(";")
    if last == "~":
        named = _NUMBERED.get(int(numbers[0])) if numbers[0].isdecimal() and numbers[0].isascii() else None
    else:
        named = _FINAL.get(last) if all(one == "" or one.isdecimal() for one in numbers) else None
    return [] if named is None else [named]
