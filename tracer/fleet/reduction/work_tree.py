"""The graph of Dask: read each piece, close the boots, and unite the states as a tree.

All pieces that may have rows of one boot are in one closure. Dask computes a graph depth first, so that only
a few states wait for their union at any moment.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.partial_state import Partial
from tracer.fleet.reduction.piece_reader import DatasetPiece, Piece, read
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow

FAN_IN: Final = 16
"""The number of states that one task unites."""

Closure = Sequence[Piece]
"""Pieces that have all the rows of some boots."""


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A graph of Dask: key -> (function, piece) or (function, key...), and the key of the whole. `reads`: the
    key of each task that reads a piece -> the piece."""

    tasks: Mapping[str, tuple[Any, ...]]
    whole: str
    reads: Mapping[str, Piece]


def together(pieces: Mapping[Piece, Iterable[Hashable]]) -> list[Closure]:
    """Return the pieces in closures: two pieces that name the same boot are in one."""
    above: dict[Hashable, Hashable] = {}

    def top_of(node: Hashable) -> Hashable:
        while (next_one := above.setdefault(node, node)) != node:
            above[node] = above[next_one]
            node = next_one
        return node

    for piece, names in pieces.items():
        for name in names:
            above[top_of(("name", name))] = top_of(piece)
    closures: dict[Hashable, list[Piece]] = {}
    for piece in pieces:
        closures.setdefault(top_of(piece), []).append(piece)
    return list(closures.values())


def tree(closures: Iterable[Closure], window: TimeWindow = ALWAYS) -> WorkTree:
    """Return the graph; without a closure, the whole is the state without any trace.

    No piece may be a trace that was recorded entirely outside of the window.
    """
    run = secrets.token_hex(4)  # a cluster may compute several graphs at a time
    tasks: dict[str, tuple[Any, ...]] = {}
    reads: dict[str, Piece] = {}
    level = []
    for number, closure in enumerate(closures):
        keys = [f"read-{run}-{len(reads) + at}" for at in range(len(closure))]
        reads |= dict(zip(keys, closure, strict=True))
        tasks |= {key: (read, piece) for key, piece in zip(keys, closure, strict=True)}
        level.append(f"close-{run}-{number}")
        is_once = len(closure) == 1 and isinstance(closure[0], DatasetPiece)
        tasks[level[-1]] = (partial(partial_state.closed if is_once else _close, window=window), *keys)
    depth = 0
    while depth == 0 or len(level) > 1:
        groups = [level[at : at + FAN_IN] for at in range(0, len(level), FAN_IN)] or [[]]
        level = [f"union-{run}-{depth}-{number}" for number in range(len(groups))]
        tasks |= {
            key: (partial(_union, window=window), *group) for key, group in zip(level, groups, strict=True)
        }
        depth += 1
    return WorkTree(tasks, level[0], reads)


def _union(*states: Partial, window: TimeWindow) -> Partial:
    return partial_state.union(states, window)


def _close(*states: Partial, window: TimeWindow) -> Partial:
    return partial_state.closed(partial_state.once(partial_state.union(states)), window)
