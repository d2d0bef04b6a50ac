"""The recorded examples, by name. Beside them, `traces/` has what a user of this checkout recorded.

`record`, `top`, `fit` and `make demo` write there by default, so a test that lists the folder depends on what
was typed before it. `refuse_to_list` finds such a test.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tracer.lab.experiments import EXPERIMENTS

TRACES: Final = Path(__file__).parents[2] / "traces"
NAMES: Final = tuple(sorted(EXPERIMENTS))
"""The names of the examples: there is one of each experiment (tests/lab/test_recorded.py)."""


def copy_examples(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """Copy examples to folder/NAME, and return the folder."""
    for name in names:
        shutil.copytree(TRACES / name, folder / name)
    return folder


def refuse_to_list() -> None:
    """Let this process fail with RuntimeError wherever it lists `traces/`, from now on."""
    top = os.path.realpath(TRACES)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.scandir", "os.listdir"):
            path = arguments[0]
            if isinstance(path, str | os.PathLike) and os.path.realpath(path) == top:
                raise RuntimeError("a test names recorded examples (support.recorded), and lists no traces/")

    sys.addaudithook(hook)
