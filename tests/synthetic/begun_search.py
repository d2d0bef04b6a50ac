"""The folder of a search of `fit` that has made its runs without a limit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracer.fit.folder import FILE, Folder
from tracer.fit.search import UNLIMITED_RUNS, Run

_MIB: Final = 1 << 20
NEXT_RUN: Final = UNLIMITED_RUNS + 1
"""The number of the run that comes next, which is the first one with a limit."""


def begin_search(path: Path, argv: Sequence[str], directory: Path) -> None:
    """Write the folder of a search of a command in a directory: each run succeeded, in 0.1 s and 64 MiB."""
    folder = Folder.open(path, argv)
    for number in range(1, NEXT_RUN):
        folder.add(Run(None, 0, 0.1, 0, 0, 64 * _MIB, f"run-{number}", 0.0), frozenset())
    stored = json.loads((path / FILE).read_text())
    (path / FILE).write_text(json.dumps(stored | {"directory": str(directory)}))
