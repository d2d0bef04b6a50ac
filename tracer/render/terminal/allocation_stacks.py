"""The stacks with which the allocating processes charged most memory, if stacks were sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Allocator, ChargedStack
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_MOST_ALLOCATORS: Final = 3
_MOST_FRAMES: Final = 5


def heaviest(report: OomReport, *, verbose: bool) -> Iterator[Fact]:
    """Yield a line for each of the largest allocators, innermost function first.

    When `verbose`, yield a line for each function of all allocators.
    """
    sampled = [(one, one.stack) for one in report.allocators if one.stack is not None]
    for number, (allocator, stack) in enumerate(sampled if verbose else sampled[:_MOST_ALLOCATORS]):
        label = "" if number else "charged in"
        if not verbose:
            yield label, f"{_chain(stack)}: {_share(allocator, stack)}"
            continue
        yield label, f"{_share(allocator, stack)}:"
        yield from (("", visible(name)) for name in (*(stack.kernel or ()), *(stack.user or ())))


def _share(allocator: Allocator, stack: ChargedStack) -> str:
    name = visible(allocator.comm) if allocator.comm else "name not known"
    sampled, total = units.size(stack.sampled_bytes), units.size(stack.of_bytes)
    return f"{name} ({allocator.tgid}), {sampled} of {total} sampled"


def _chain(stack: ChargedStack) -> str:
    """Return the functions of the program, or those of the kernel if the program's are not known."""
    names = stack.user or stack.kernel or ("no stack could be taken",)
    more = ["…"] if len(names) > _MOST_FRAMES else []
    return " ← ".join([*map(visible, names[:_MOST_FRAMES]), *more])
