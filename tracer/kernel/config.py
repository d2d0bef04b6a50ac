"""The options with which this kernel was built and booted."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
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


def places(release: str) -> tuple[Path, ...]:
    """Return where a kernel's configuration may be: its own (CONFIG_IKCONFIG_PROC), or beside its image."""
    return (Path("/proc/config.gz"), Path(f"/boot/config-{release}"), Path(f"/lib/modules/{release}/config"))


def options_set(files: Iterable[Path] | None = None) -> frozenset[str] | None:
    """Return the names (CONFIG_…) of the options that are set to y or m; None if no file can be read."""
    for file in files if files is not None else places(os.uname().release):
        try:
            content = file.read_bytes()
            text = gzip.decompress(content) if file.suffix == ".gz" else content
        except (OSError, EOFError):
            continue
        lines = text.decode("utf-8", "replace").splitlines()
        return frozenset(line.partition("=")[0] for line in lines if line.endswith(("=y", "=m")))
    return None
