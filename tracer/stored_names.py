r"""The text that stands for a name of a file, cgroup, task or device in a trace; different names have
different texts.

A name on Linux is bytes, nearly always UTF-8. A byte that is not UTF-8 becomes `\xNN` (`\x80` or above). A
backslash stays a backslash, so that the escapes in names of systemd units (`a\x2db.service`) are kept; only a
backslash that would look like such a byte, or like the result of this rule, becomes `\x5c`.
"""

from __future__ import annotations

import os
import re
from typing import Final

NAMELESS_PYTHON: Final = "[python]"
"""A frame of Python in `stacks` whose code object could not be read."""

IN_SOURCE: Final = re.compile(r"(?P<native>.* \[[^\]]*\]) \((?P<file>.+):(?P<line>\d+)\)", re.DOTALL)
"""A frame of native code in `stacks` whose line is known: `function [module] (file:line)`."""

MINOR_BITS: Final = 20  # include/linux/kdev_t.h, the kernel's own dev_t

_MISLEADING_BACKSLASH: Final = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")


def stored_name(name: bytes) -> str:
    """Return the text that stands for a name in a trace."""
    text = name.decode("utf-8", "surrogateescape")
    if _is_plain(text):
        return text
    plain = _MISLEADING_BACKSLASH.sub(r"\\x5c", text)
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stored_text(name: str) -> str:
    """Return the text for a name that was decoded as UTF-8 with `surrogateescape`."""
    return stored_name(name.encode("utf-8", "surrogateescape"))


def stored_path(path: str) -> str:
    """Return the text for a name or path from `os`, `pathlib` or the command line."""
    return path if _is_plain(path) else stored_name(os.fsencode(path))


def _is_plain(text: str) -> bool:
    return text.isascii() and "\\" not in text


def device_numbers(dev: int) -> tuple[int, int]:
    """Return the major and the minor number of a dev_t."""
    return dev >> MINOR_BITS, dev & ((1 << MINOR_BITS) - 1)


def stored_device(dev: int) -> str:
    """Return the text for a dev_t: `major:minor`."""
    return "{}:{}".format(*device_numbers(dev))
