"""Folders of traces: copies of recorded examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "traces"
CopyTraces = Callable[..., Path]


@pytest.fixture
def copy_traces(tmp_path: Path) -> CopyTraces:
    """Return a function that copies examples to `tmp_path/folder/<name>` and returns that folder."""

    def copy(*names: str, folder: str = "traces") -> Path:
        target = tmp_path / folder
        for name in names:
            shutil.copytree(EXAMPLES / name, target / name)
        return target

    return copy
