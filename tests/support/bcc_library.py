"""The library of the BCC that is loaded into this process."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from tracer.capture.bpf.compiled.compiler import TOO_OLD

_DECLARED: Final = b"(*ringbuf_query)"  # of a table, in the header for programs that the library contains


def loaded_library() -> Path | None:
    """Return the path of the libbcc that this process maps; None if it maps none."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    places = (Path(line.split(maxsplit=5)[-1]) for line in lines if "/libbcc.so" in line)
    return next((place for place in places if place.exists()), None)


def why_too_old(library: Path | None) -> str | None:
    """Return why a libbcc cannot compile the programs, or None if it is new enough or not known."""
    if library is None:
        return None
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return None if content.find(_DECLARED) >= 0 else TOO_OLD
