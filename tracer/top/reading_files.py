"""The child of the live view that reads what is in memory: `python -m tracer.top.reading_files CGROUP_ID`.

It passes over all pages of the machine, which takes half a second for 24 GiB. It prints lines of JSON: its
progress, and at the end the files (`files_now.FilesNow`) or an error.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any, Final

from tracer.capture.contents.files_below import files_below
from tracer.errors import TracerError
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


if __name__ == "__main__":
    main(sys.argv[1:])
