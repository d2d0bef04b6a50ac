"""Escapes for names that come from the kernel (comm, cgroup path, container): any user can choose them.

All code that shows such a name passes the name through `visible` first. A character that could move the
cursor, change a colour, reverse the reading direction or break a line is shown as its escape.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, set_cell_size

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(name: str) -> str:
    r"""Return `name` with control, format, unassigned and surrogate characters as `\n`, `\x1b`, `\u202e`.

    A byte that is not UTF-8 (a lone surrogate of `surrogateescape`) is shown as the escape of that byte. A
    backslash is kept, so that the escaped names of systemd units (`a\x2db.service`) stay readable.
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(_visible(character) for character in name)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN_CATEGORIES:
        return character
    if character in _SHORT:
        return _SHORT[character]
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:
        point -= 0xDC00
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def fitted(name: str, cells: int) -> str:
    """Return `visible(name)` in at most `cells` cells. A longer name gets an ellipsis in its middle.

    Both ends matter: the path of a cgroup begins with its runtime and ends with its own name.
    """
    shown = visible(name)
    if cell_len(shown) <= cells:
        return shown
    head_cells = (cells - 1) // 2
    tail = shown[-(cells - 1 - head_cells) :]
    while cell_len(tail) > cells - 1 - head_cells:
        tail = tail[1:]
    return set_cell_size(shown, head_cells) + "…" + tail
