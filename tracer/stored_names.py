r"""Names of files, cgroups and tasks as a trace keeps them: text that says each byte of the name.

A name on Linux is bytes without a meaning; nearly always they are UTF-8. A byte that is not becomes `\xNN`,
from `\x80` on. A backslash stays one, so that the escapes in names of systemd units (`a\x2db.service`) read
as they are written; only where it would look like such a byte, or like the result of this rule, it becomes
`\x5c`. So no two names have one text.
"""

from __future__ import annotations

import os
import re
from typing import Final

_MISLEADING_BACKSLASH: Final = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")


def stored_name(name: bytes) -> str:
    """Return the text that stands for a name in a trace."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isascii() and "\\" not in text:
        return text
    plain = _MISLEADING_BACKSLASH.sub(r"\\x5c", text)
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stored_text(name: str) -> str:
    """Return the same for a name that was decoded as UTF-8 with `surrogateescape`."""
    return stored_name(name.encode("utf-8", "surrogateescape"))


def stored_path(path: str) -> str:
    """Return the same for a name or path as Python has it from `os`, `pathlib` or the command line."""
    return stored_name(os.fsencode(path))
