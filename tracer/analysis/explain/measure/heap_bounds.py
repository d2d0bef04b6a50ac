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
SEMI_SPACES: Final = 3
"""The largest young generation of V8, in semi-spaces (YoungGenerationSizeFromSemiSpaceSize in
src/heap/heap.cc). No option for the old space bounds it."""
MOST_YOUNG_BYTES: Final = SEMI_SPACES * 64 << 20
"""The largest young generation without an option. A semi-space is at most 16 MiB up to Node.js 22, and 64 MiB
in 24 (measured)."""
_BESIDE_BYTES: Final = {"java": 0, "node": MOST_YOUNG_BYTES}
_SEMI_SPACE: Final = re.compile(r"(?:^| )--max[-_]semi[-_]space[-_]size[= ](\d{1,9})(?= |$)")
_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class HeapBound:
    """The bound of the heap of a process of `program`.

    `option` is the option that sets the bound; None without one: the program then takes a part of
    the cgroup's limit. `bytes_` is the largest size of the heap; None: not known. `set_bytes` is the part of
    it that `option` sets. `young_bytes` is the largest young generation, if another option sets that.
    """

    program: str
    option: str | None = None
    bytes_: int | None = None
    set_bytes: int | None = None
    young_bytes: int | None = None


def heap_bound(comm: str | None, cmdline: str | None) -> HeapBound | None:
    """Return the bound of a process; None for a program without one. Of repeated options, the last counts."""
    words = (cmdline or "").split()
    name = words[0].rpartition("/")[2] if words else ""
    program = name if name in (*_OPTIONS, *_WITHOUT_OPTION) else comm
    if program in _WITHOUT_OPTION:
        return HeapBound(program)
    if program not in _OPTIONS:
        return None
    line = " ".join(words)
    found, young = list(_OPTIONS[program].finditer(line)), _young_bytes(line) if program == "node" else None
    if not found:
        return HeapBound(program, young_bytes=young)
    _, number, unit = found[-1].groups()
    size = int(number) * _UNITS.get(unit.lower(), _PLAIN_UNIT[program])
    most = size + (_BESIDE_BYTES[program] if young is None else young)
    return HeapBound(program, found[-1].group().strip(), most, size, young)


def _young_bytes(line: str) -> int | None:
    """Return the young generation of V8 that an option allows; None without one.

    V8 rounds a semi-space up to a power of two (Heap::ConfigureHeap in src/heap/heap.cc).
    """
    sizes = [int(number) for number in _SEMI_SPACE.findall(line)]
    return SEMI_SPACES * (1 << (sizes[-1] - 1).bit_length() << 20) if sizes and sizes[-1] else None
