"""The lives of a name, in words: which run, and which runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def one_of(run: int, runs: int) -> str:
    """`run 3 of 7`."""
    return f"run {run} of {runs}"


def listed(runs: Iterable[int]) -> str:
    """`run 3`, `runs 1, 3 to 5`: ordinals that ascend."""
    words: list[str] = []
    is_one = True
    for first, last in _without_gaps(runs):
        is_one = not words and first == last
        words.append(f"{first} to {last}" if last > first + 1 else ", ".join(map(str, sorted({first, last}))))
    return f"run{'' if is_one else 's'} {', '.join(words)}"


def _without_gaps(runs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each piece."""
    piece: tuple[int, int] | None = None
    for run in runs:
        if piece is not None and run == piece[1] + 1:
            piece = piece[0], run
            continue
        if piece is not None:
            yield piece
        piece = run, run
    if piece is not None:
        yield piece
