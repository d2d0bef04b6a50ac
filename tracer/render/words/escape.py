"""Names that come from the kernel (comm, cgroup path, container) are chosen by whoever runs there.

Everything that shows such a name passes it through `visible` first: what could move a cursor, change a
colour, reverse the reading direction or break a line is shown as the escape that stands for it.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, set_cell_size

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(name: str) -> str:
    r"""`name` with control, format, unassigned and surrogate characters as `\n`, `\x1b`, `\u202e`.

    A byte that was no UTF-8 (a lone surrogate of `surrogateescape`) is shown as that byte. A backslash stays
    one, so that the escaped names of systemd units (`a\x2db.service`) read as they are written.
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
    """`visible(name)` in at most `cells` terminal cells; the middle of a longer one becomes an ellipsis.

    Both ends matter: a cgroup's path begins with its runtime and ends with its own name.
    """
    shown = visible(name)
    if cell_len(shown) <= cells:
        return shown
    head_cells = (cells - 1) // 2
    tail = shown[-(cells - 1 - head_cells) :]
    while cell_len(tail) > cells - 1 - head_cells:
        tail = tail[1:]
    return set_cell_size(shown, head_cells) + "…" + tail
