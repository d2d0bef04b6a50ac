"""Folded stacks, which flame graphs are drawn from: a line each, `process;function;function BYTES`.

The outermost function stands first, the program's own before those of the kernel that they led to. Names
come from whoever wrote the program: what would end a function or a line, or act on a terminal, is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer.analysis.views.stack_samples import Charged
from tracer.render.words.escape import visible


def lines(charged: Iterable[Charged]) -> Iterator[str]:
    """Each with its end."""
    for row in charged:
        names = (row.comm, *row.user, *row.kernel)
        yield f"{';'.join(map(_name, names))} {row.weight_bytes}\n"


def _name(name: str) -> str:
    return visible(name).replace(";", r"\x3b") or "[unknown]"
