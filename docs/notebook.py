"""The notebook of the documents: `python docs/notebook.py` runs it and keeps the outputs.

Edit its cells in Jupyter or as JSON; `make pictures` runs it again, and tests/test_notebook.py finds outputs
that are not those of the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

NOTEBOOK: Final = Path(__file__).parent / "examples" / "analysis.ipynb"
TIMEOUT_S: Final = 120


def read() -> Any:
    """Return the notebook as it is in the repository."""
    return nbformat.reads(NOTEBOOK.read_text(), as_version=4)  # type: ignore[no-untyped-call]


def executed(notebook: Any) -> Any:
    """Run the cells in a new kernel on loopback, in the folder of the notebook; return it with their outputs.

    What differs from run to run or from machine to machine is left out. Raises CellExecutionError.
    """
    NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def main() -> None:
    """Run the notebook and write it with its outputs."""
    text = nbformat.writes(executed(read()))  # type: ignore[no-untyped-call]
    NOTEBOOK.write_text(text + "\n")


if __name__ == "__main__":
    main()
