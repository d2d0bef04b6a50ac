"""The order of the rows: a tree whose siblings are sorted, or one sorted list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tracer.quantities import TOP_COLUMNS
from tracer.top.live_row import LiveRow

_MOST_DEPTH: Final = 64
_IS_ASCENDING: Final = {column.key: column.is_ascending for _, column in TOP_COLUMNS}


@dataclass(frozen=True, slots=True)
class Placed:
    """A row and its `depth` in the tree. `is_folded`: its children are hidden; None: it has no children."""

    row: LiveRow
    depth: int = 0
    is_folded: bool | None = None


def arrange(
    rows: Sequence[LiveRow],
    *,
    sort: str,
    is_reversed: bool = False,
    is_tree: bool = True,
    words: str = "",
    folded: Collection[int] = (),
) -> tuple[Placed, ...]:
    """Return the rows in the order in which they are shown.

    A tree has siblings in the order of their best descendants, so that the first row of the list is in its
    first branch; by name, in the order of their own names.

    With `words`, only rows remain whose name or path contains them, whatever the case, and in a tree their
    ancestors. The children of `folded` cgroups are hidden. Rows without a number for `sort` come last.
    """
    kept = _matching(rows, words, with_parents=is_tree)
    in_order = _sorted(kept, sort, is_reversed)
    if not is_tree:
        return tuple(map(Placed, in_order))
    return tuple(_walk(_with_branches(in_order, sort), folded))


def _with_branches(rows: Sequence[LiveRow], sort: str) -> list[LiveRow]:
    """Return sorted rows in the order of the best row at or below each of them."""
    if sort not in _IS_ASCENDING:
        return [*rows]
    by_id = {row.cgroup_id: row for row in rows}
    best: dict[int, int] = {}
    for place, row in enumerate(rows):
        if row.number(sort) is None:
            break
        above: LiveRow | None = row
        while above is not None and above.cgroup_id not in best:
            best[above.cgroup_id] = place
            above = by_id.get(above.parent_id) if above.parent_id is not None else None
    return sorted(rows, key=lambda row: best.get(row.cgroup_id, len(rows)))


def _matching(rows: Sequence[LiveRow], words: str, *, with_parents: bool) -> list[LiveRow]:
    if not words:
        return [*rows]
    wanted = words.casefold()
    found = {row.cgroup_id for row in rows if wanted in f"{row.name}\0{row.path}".casefold()}
    if with_parents:
        parents = {row.cgroup_id: row.parent_id for row in rows}
        for number in [*found]:
            above = parents.get(number)
            while above is not None and above not in found and above in parents:
                found.add(above)
                above = parents[above]
    return [row for row in rows if row.cgroup_id in found]


def _sorted(rows: Sequence[LiveRow], sort: str, is_reversed: bool) -> list[LiveRow]:
    by_name = sorted(rows, key=lambda row: (row.name, row.path))
    if sort not in _IS_ASCENDING:
        return by_name[::-1] if is_reversed else by_name
    known = [(number, row) for row in by_name if (number := row.number(sort)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=_IS_ASCENDING[sort] == is_reversed)
    return [row for _, row in known] + [row for row in by_name if row.number(sort) is None]


def _walk(rows: Sequence[LiveRow], folded: Collection[int]) -> Iterator[Placed]:
    """Yield the rows as a tree. A row whose parent is not among the rows is a root."""
    ids = {row.cgroup_id for row in rows}
    children: dict[int | None, list[LiveRow]] = {}
    for row in rows:
        above = row.parent_id if row.parent_id in ids and row.parent_id != row.cgroup_id else None
        children.setdefault(above, []).append(row)
    ahead = [(row, 0) for row in reversed(children.get(None, []))]
    while ahead:
        row, depth = ahead.pop()
        below = children.get(row.cgroup_id, [])
        is_folded = row.cgroup_id in folded if below else None
        yield Placed(row, depth, is_folded)
        if not is_folded and depth < _MOST_DEPTH:
            ahead += [(child, depth + 1) for child in reversed(below)]
