"""The recorded examples, by name. Beside them, `traces/` has what a user of this checkout recorded.

`record`, `top`, `fit` and `make demo` write there by default, so a test that lists the folder depends on what
was typed before it. `refuse_to_list` finds such a test.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracer.lab.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.trace import AnalysedTrace

TRACES: Final = Path(__file__).parents[2] / "traces"
NAMES: Final = tuple(sorted(EXPERIMENTS))
"""The names of the examples: there is one of each experiment (tests/lab/test_recorded.py)."""


@cache
def opened(name: str) -> AnalysedTrace:
    """Return an example, which all tests of this process share: a test that changes what it reads, or how it
    is computed, opens its own."""
    from tracer.analysis.trace import AnalysedTrace  # here, since each inner run of pytest imports this file

    return AnalysedTrace(TRACES / name)


@cache
def reports_of(name: str) -> list[OomReport]:
    """Return the explained kills of an example, in the same way."""
    return opened(name).explain()


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
