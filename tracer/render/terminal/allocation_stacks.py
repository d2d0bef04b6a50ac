"""The stacks with which memory was charged, if stacks were sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tracer import units
from tracer.analysis.results.memory import ChargedStack
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_MOST_FRAMES: Final = 5
_WORDS: Final = {
    "anon": " of anonymous memory",
    "shmem": " of shared memory",
    "file": " of page cache",
    "kernel": " of kernel memory",
}


def charged_in(stacks: Sequence[ChargedStack], *, verbose: bool) -> Iterator[Fact]:
    """Yield a line for each stack, or for each function if `verbose`, innermost function first."""
    for number, stack in enumerate(stacks):
        label = "" if number else "charged in"
        if not verbose:
            yield label, f"{_chain(stack)}: {_share(stack)}"
            continue
        yield label, f"{_share(stack)}:"
        yield from (("", visible(name)) for name in (*(stack.kernel or ()), *(stack.user or ())))


def _share(stack: ChargedStack) -> str:
    name = visible(stack.comm) if stack.comm else "name not known"
    who = (
        f"{name} ({stack.tgid})"
        if stack.processes == 1
        else f"{units.count(stack.processes)} {name} processes"
    )
    sampled, whole = units.size(stack.sampled_bytes), units.size(stack.of_bytes)
    return f"{who}, {sampled} of {whole}{_WORDS.get(stack.of, '')} sampled"


def _chain(stack: ChargedStack) -> str:
    """Return the functions of the program, or of the kernel if the program's functions are not known."""
    names = stack.user or stack.kernel or ("no stack could be taken",)
    more = ["…"] if len(names) > _MOST_FRAMES else []
    return " ← ".join([*map(visible, names[:_MOST_FRAMES]), *more])
