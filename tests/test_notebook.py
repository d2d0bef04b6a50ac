"""The notebook of the documents: it runs, and its outputs are those that are committed."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

NOTEBOOK = runpy.run_path(str(Path(__file__).parents[1] / "docs/notebook.py"))


def outputs(notebook: Any) -> list[list[str]]:
    """Return the text of the outputs of each code cell; of a picture, only that it is there."""
    return [
        [
            "a picture"
            if "image/png" in output.get("data", {})
            else output.get("text") or output["data"]["text/plain"]
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_notebook_prints_what_is_committed() -> None:
    committed = NOTEBOOK["read"]()
    shown = outputs(committed)
    assert outputs(NOTEBOOK["executed"](NOTEBOOK["read"]())) == shown, "`make pictures` runs it again"
    assert shown.count(["a picture"]) == 1
    assert ["True\nTrue\n"] in shown
    assert all(shown), "each cell shows something"


def test_committed_notebook_has_nothing_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK["NOTEBOOK"].read_text()
    assert len(text) < 250_000
    assert str(Path(__file__).parents[1]) not in text
    assert all(not cell.metadata for cell in NOTEBOOK["read"]().cells)
