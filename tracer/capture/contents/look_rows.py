"""What a look at the page cache of cgroups finds: rows of `contents` and `inodes`, in a child of the
recorder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np

from tracer.capture.contents.look import Wanted, has_generations
from tracer.capture.contents.pass_over_pages import SIZES, Amounts, Found, PassOverPages
from tracer.capture.rows.inode_rows import InodeRows
from tracer.enumerations import CONTENTS
from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process.asked_child import MESSAGE_BYTES

MOST_FILES: Final = 100
"""The files of a cgroup that a look names, the largest first, and the cgroups whose files it names; the rest
of each cgroup is one row."""

MOST_NAMES: Final = 2_000
"""The files that a look names in all: it takes 0.1 ms for each."""

_KINDS: Final = ("file", "shmem")

Tables = dict[str, list[dict[str, Any]]]


def messages(numbers: Sequence[int], offset_ns: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a look at these cgroups and those below them, or why it failed, in few messages.

    `offset_ns`: by how much CLOCK_REALTIME is ahead of CLOCK_MONOTONIC.
    """
    try:
        with PassOverPages() as passing:
            ktime_ns = time.monotonic_ns()
            found = passing.scan(numbers, slab=False)
            common = {"time": ktime_ns + offset_ns, "duration_ns": time.monotonic_ns() - ktime_ns}
            yield from _messages(_rows(passing, found, common))
    except TracerError as error:
        yield {"failed": str(error)}


def _rows(passing: PassOverPages, found: Found, common: dict[str, int]) -> Iterator[Tables]:
    """Yield the rows of the largest files, each with its name, and those of the rest."""
    has_active = not has_generations()
    kinds = [CONTENTS.number(kind) for kind in _KINDS]
    totals, amounts = (rows[np.isin(rows["kind"], kinds)] for rows in (found.totals, found.amounts))
    rest = {(int(row["cgroup_id"]), int(row["kind"])): row.copy() for row in totals}
    files = dict.fromkeys(rest, 0)
    for key in zip(amounts["cgroup_id"].tolist(), amounts["kind"].tolist(), strict=True):
        files[key] += 1
    held: dict[int, int] = {}
    for (number, _), row in rest.items():
        held[number] = held.get(number, 0) + int(row["bytes"])
    order = sorted(held, key=lambda number: (-held[number], number))
    with closing(Mounts()) as mounts:
        inode_rows = InodeRows(mounts)
        for amount in _named(amounts, order):
            record = passing.file(amount)
            if record is None:  # it is gone: it stays in the rest
                continue
            key = int(amount["cgroup_id"]), int(amount["kind"])
            for name in SIZES:
                rest[key][name] -= amount[name]
            files[key] -= 1
            yield {
                "inodes": inode_rows.rows_for(record),
                "contents": [common | _row(amount, int(amount["object"]), 1, has_active=has_active)],
            }
    for key, row in rest.items():
        if row["bytes"]:
            yield {"contents": [common | _row(row, None, files[key], has_active=has_active)]}


def _named(amounts: Amounts, order: Sequence[int]) -> Amounts:
    named: Amounts = Wanted(by=None, most=MOST_FILES).largest(amounts, order)[:MOST_NAMES]
    return named


def _row(sizes: Any, inode_id: int | None, files: int, *, has_active: bool) -> dict[str, Any]:
    row = {name: int(sizes[name]) for name in SIZES}
    if not has_active:
        row["active_bytes"] = None  # type: ignore[assignment]
    return {
        "cgroup_id": int(sizes["cgroup_id"]),
        "kind": CONTENTS.names[int(sizes["kind"])],
        "inode_id": inode_id,
        "files": files,
        **row,
    }


def _messages(rows: Iterable[Tables]) -> Iterator[dict[str, Tables]]:
    """Yield rows in few messages, each short enough."""
    together: Tables = {}
    size = 0
    for some in rows:
        length = len(json.dumps(some))
        if size and size + length > MESSAGE_BYTES // 2:
            yield {"tables": together}
            together, size = {}, 0
        for table, listed in some.items():
            together.setdefault(table, []).extend(listed)
        size += length
    if together:
        yield {"tables": together}
