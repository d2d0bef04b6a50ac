"""The flame graph of the code that grew: what the template draws, with the outermost function on top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tracer import units
from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.code_samples import KERNEL, LIBRARY, PROGRAM, Growth
from tracer.render.page.drawing import percent
from tracer.render.words import code_facts
from tracer.render.words.escape import visible

ROW_PX: Final = 18
MOST_BLOCKS: Final = 2000
"""A browser has to lay out all of them; the smallest frames are left out."""
_MOST_FUNCTIONS: Final = 10

_KEYS: Final = ((PROGRAM, "the program"), (LIBRARY, "libraries, the interpreter"), (KERNEL, "the kernel"))
TITLES: Final = ("function", "share", "size")


@dataclass(frozen=True, slots=True)
class Block:
    """A frame at its place: `left` and `width` in percent, the top in px. `words` has all that is known."""

    what: str
    left: str
    width: str
    top: int
    label: str
    words: str


@dataclass(frozen=True, slots=True)
class FlameGraph:
    """The blocks, each before those below it, and the functions of the program with the largest shares.
    `heading` names the memory, `note` says what a share means."""

    heading: str
    note: str
    blocks: tuple[Block, ...]
    functions: tuple[tuple[str, ...], ...]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Return (what, words) of the colours that occur."""
        there = {block.what for block in self.blocks}
        return [(what, words) for what, words in _KEYS if what in there]

    @property
    def height(self) -> int:
        """Return the height of the graph in px."""
        return max(block.top for block in self.blocks) + ROW_PX


def flame_graph(
    tree: Sequence[Growth], kinds: Sequence[str], sample_bytes: int, most_blocks: int = MOST_BLOCKS
) -> FlameGraph | None:
    """Return the graph of a tree; None if the tree is empty.

    `kinds`: the kinds of memory in the tree (anon, shmem, file, kernel). `sample_bytes`: the growth for which
    a sample stands. `most_blocks`: how many of the largest frames are drawn.
    """
    whole = sum(one.bytes for one in tree)
    if not whole:
        return None
    memory = code_facts.kinds_in_words(kinds)
    or_more = " or more" if "file" in kinds else ""  # bpf/shared/pieces.h
    least = _least_bytes(tree, most_blocks)
    blocks = [Block("whole", "0%", "100%", 0, f"all, {units.size(whole)}", f"all: {units.size(whole)}")]
    blocks += _blocks(tree, whole, least, 0, ROW_PX)
    return FlameGraph(
        f"{units.size(whole)} of {memory} in samples of {units.size(sample_bytes)}{or_more}",
        "A frame is as wide as the part of this growth that came below it; callers are above. Memory that "
        "was freed and grew again counts twice.",
        tuple(blocks),
        tuple(_functions(tree, whole)),
    )


def _blocks(tree: Sequence[Growth], whole: int, least: int, begin: int, top: int) -> Iterator[Block]:
    for one in tree:
        if one.bytes >= least:
            name = code_facts.frame(one.frame)
            yield Block(
                one.what,
                percent(begin / whole),
                percent(one.bytes / whole),
                top,
                visible(one.frame.function),
                f"{name}: {code_facts.percent(one.bytes / whole)}, {units.size(one.bytes)}",
            )
            yield from _blocks(one.below, whole, least, begin, top + ROW_PX)
        begin += one.bytes


def _least_bytes(tree: Sequence[Growth], most_blocks: int) -> int:
    """Return the bytes from which a frame is drawn. A frame is never larger than the one above it."""
    sizes, ahead = list[int](), list(tree)
    while ahead:
        node = ahead.pop()
        sizes.append(node.bytes)
        ahead += node.below
    sizes.sort(reverse=True)
    return sizes[most_blocks] + 1 if len(sizes) > most_blocks else 0


def _functions(tree: Sequence[Growth], whole: int) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table below the graph. A function that calls itself counts once."""
    sums: Counter[CodeFrame] = Counter()

    def add(node: Growth, above: frozenset[CodeFrame]) -> None:
        frame = CodeFrame(node.frame.function, node.frame.file, None, node.frame.module)
        if node.what == PROGRAM and frame not in above:
            sums[frame] += node.bytes
        for one in node.below:
            add(one, above | {frame})

    for one in tree:
        add(one, frozenset())
    for frame, nr_bytes in sorted(sums.items(), key=lambda item: (-item[1], str(item[0])))[:_MOST_FUNCTIONS]:
        yield code_facts.frame(frame), code_facts.percent(nr_bytes / whole), units.size(nr_bytes)
