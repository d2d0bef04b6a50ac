"""The child of the live view that reads what is in memory: `python -m tracer.top.reading_files CGROUP_ID`.

It passes over all pages of the machine, which takes half a second for 24 GiB. It prints lines of JSON: its
progress, and at the end the files (`files_now.FilesNow`) or an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from tracer.capture.contents.held import HeldFile
from tracer.capture.contents.look import has_generations, held_file
from tracer.capture.contents.pass_over_pages import SIZES, Amounts, PassOverPages
from tracer.capture.rows.inode_rows import InodeRows
from tracer.enumerations import CONTENTS
from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process.children import end_with_parent, stand_back

MOST_NAMED: Final = 100
MOST_SIZES: Final = 10_000
"""The largest files whose sizes are printed: about 400 kB."""


def main(arguments: list[str]) -> None:
    """Print the files in the page cache of a cgroup and the cgroups below it."""
    end_with_parent()
    stand_back(is_awaited=True)
    try:
        document = _read(int(arguments[0]))
    except TracerError as error:
        document = {"error": str(error)}
    _print(document)


def _read(cgroup_id: int) -> dict[str, Any]:
    percents = set[int]()

    def counts(done: int, whole: int) -> None:
        percent = 100 * done // whole
        if percent not in percents:
            percents.add(percent)
            _print({"percent": percent})

    found = files_below(cgroup_id, MOST_NAMED, counts)
    unwritten = found.sizes["dirty_bytes"] + found.sizes["writeback_bytes"]
    columns = (found.sizes["object"], found.sizes["bytes"], unwritten)
    return {
        "files": len(found.sizes),
        "bytes": int(found.sizes["bytes"].sum()),
        "unnamed_bytes": found.unnamed_bytes,
        "sizes": [
            [int(value) for value in row] for row in zip(*(one[:MOST_SIZES] for one in columns), strict=True)
        ],
        "named": [asdict(one) for one in found.named],
    }


def _print(document: dict[str, Any]) -> None:
    print(json.dumps(document, separators=(",", ":")), flush=True)


@dataclass(frozen=True, slots=True)
class FilesBelow:
    """The page cache of a cgroup and the cgroups below it, removed ones included.

    `sizes` has a row for each file, the largest first: `object` is its inode_id, as in the table `inodes`,
    and the sizes are as in `AMOUNT`. `named` are the first of them. `unnamed_bytes` are of files for which
    there was no room.
    """

    sizes: Amounts
    named: list[HeldFile]
    unnamed_bytes: int


def files_below(cgroup_id: int, most_named: int, counts: Callable[[int, int], None]) -> FilesBelow:
    """Pass over all pages once, and return the page cache of a cgroup and of those below it.

    `counts` is called with the number of pages that were passed, and of all. Raises TracerError if the kernel
    or BCC is unfit, or without root.
    """
    with PassOverPages() as passing, closing(Mounts()) as mounts:
        found = passing.scan([cgroup_id], slab=False, counts=counts)
        sizes, names, has_active = summed_by_file(found.amounts), InodeRows(mounts), not has_generations()
        named = [held_file(passing, names, one, has_active=has_active) for one in sizes[:most_named]]
    return FilesBelow(sizes, named, found.unnamed_bytes)


def summed_by_file(amounts: Amounts) -> Amounts:
    """Return a row for each file among amounts of all kinds, the largest first: its sizes in all cgroups."""
    of_files = amounts[np.isin(amounts["kind"], [CONTENTS.number(kind) for kind in ("file", "shmem")])]
    _, first, which = np.unique(of_files["object"], return_index=True, return_inverse=True)
    sums = of_files[first]
    for field in SIZES:
        sums[field] = 0
        np.add.at(sums[field], which.reshape(-1), of_files[field])
    return sums[np.argsort(sums["bytes"], kind="stable")[::-1]]


if __name__ == "__main__":
    main(sys.argv[1:])
