"""Folded stacks for flame graphs: one line for each stack, `process;function;function BYTES`.

The outermost function comes first, and the functions of the program come before those of the kernel. Any
program can choose the names, so characters that end a function or a line, or act on a terminal, are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer.analysis.views.code_samples import Charged
from tracer.render.words.escape import visible


def lines(charged: Iterable[Charged]) -> Iterator[str]:
    """Yield each line with its line end."""
    for row in charged:
        yield f"{joined((row.comm, *row.user, *row.kernel))} {row.weight_bytes}\n"


def joined(names: Iterable[str]) -> str:
    """Return the names in one line, with `;` between them."""
    return ";".join(map(_name, names))


def _name(name: str) -> str:
    return visible(name).replace(";", r"\x3b") or "[unknown]"
