"""Memory that the kernel's command line keeps out of cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tracer.categories import PARTS

_COMMAND_LINE: Final = Path("/proc/cmdline")
_OPTION: Final = "cgroup.memory="
_SOCK: Final = "sock"
_KERNEL: Final = ("kernel", *(part.name for part in PARTS if part.layer == "kernel" and part.name != _SOCK))
_WITHOUT: Final = {"nokmem": _KERNEL, "nosocket": (_SOCK,)}
"""Word of the option -> the counters of tracer/categories.py that then stay 0 (cgroup_memory() in
mm/memcontrol.c)."""


def uncharged(command_line: Path = _COMMAND_LINE) -> frozenset[str]:
    """Return the counters that stay 0 because this kernel was booted not to charge such memory."""
    return frozenset(_counters(command_line.read_text(encoding="utf-8", errors="replace")))


def _counters(command_line: str) -> Iterator[str]:
    for argument in command_line.split():
        if argument.startswith(_OPTION):
            for word in argument.removeprefix(_OPTION).split(","):
                yield from _WITHOUT.get(word, ())
