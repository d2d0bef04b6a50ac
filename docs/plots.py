"""The pictures of `t.plot` in the documents.

`python docs/plots.py KILLED LIVED` writes docs/plot-NAME.svg for each.

`make pictures` draws all pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import matplotlib

import tracer

PICTURES: Final = ("timeline", "cushion", "waterfall", "evictions", "whatif")
LIVED: Final = frozenset({"whatif"})
"""Pictures of a run without a kill."""
FOLDER: Final = Path(__file__).parent


def path_of(name: str) -> Path:
    """Return where the picture of a method of `t.plot` is."""
    return FOLDER / f"plot-{name}.svg"


def main(killed: str, lived: str) -> None:
    """Draw the pictures of a trace with a kill, and of one without.

    The same traces and the same matplotlib give the same files.
    """
    matplotlib.use("svg")
    plots = {False: tracer.open(killed).plot, True: tracer.open(lived).plot}
    with matplotlib.rc_context({"svg.hashsalt": "memcg-tracer"}):
        for name in PICTURES:
            axes = getattr(plots[name in LIVED], name)()
            axes.figure.savefig(path_of(name), metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


if __name__ == "__main__":
    main(*sys.argv[1:])
