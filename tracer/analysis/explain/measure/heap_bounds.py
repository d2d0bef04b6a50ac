"""The bound of the heap of Java and Node.js, as their command lines set it, and of .NET."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OPTIONS: Final = {
    "java": re.compile(r"(?:^| )(-Xmx|-XX:MaxHeapSize=)(\d+)([kmgt]?)(?= |$)", re.IGNORECASE),
    "node": re.compile(r"(?:^| )(--max[-_]old[-_]space[-_]size[= ])(\d+)()(?= |$)"),
}
_WITHOUT_OPTION: Final = ("dotnet",)
"""Programs whose command line has no such option: .NET reads its configuration (System.GC.HeapHardLimit), and
takes 75 % of the cgroup's limit by default."""
_PLAIN_UNIT: Final = {"java": 1, "node": 1 << 20}
_BESIDE_BYTES: Final = {"java": 0, "node": 48 << 20}
"""The part of the heap that the option does not bound: three semi-spaces of 16 MiB, V8's default."""
_SEMI_SPACES: Final = re.compile(r"--max[-_]semi[-_]space[-_]size")
_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class HeapBound:
    """The bound of the heap of a process of `program`.

    `option` is the option that sets the bound; None without one: the program then takes a part of
    the cgroup's limit. `bytes_` is the largest size of the heap; None: not known.
    """

    program: str
    option: str | None = None
    bytes_: int | None = None


def heap_bound(comm: str | None, cmdline: str | None) -> HeapBound | None:
    """Return the bound of a process; None for a program without one. Of repeated options, the last counts."""
    words = (cmdline or "").split()
    name = words[0].rpartition("/")[2] if words else ""
    program = name if name in (*_OPTIONS, *_WITHOUT_OPTION) else comm
    if program in _WITHOUT_OPTION:
        return HeapBound(program)
    if program not in _OPTIONS:
        return None
    found = list(_OPTIONS[program].finditer(" ".join(words)))
    if not found:
        return HeapBound(program)
    _, number, unit = found[-1].groups()
    size = int(number) * _UNITS.get(unit.lower(), _PLAIN_UNIT[program])
    most = None if _SEMI_SPACES.search(" ".join(words)) else size + _BESIDE_BYTES[program]
    return HeapBound(program, found[-1].group().strip(), most)
