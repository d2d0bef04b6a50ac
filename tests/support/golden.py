"""Comparison of output with golden files, which a person has read."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

UPDATE = "MEMCG_TRACER_UPDATE_GOLDEN"


def compare(path: Path, text: str, node_id: str) -> None:
    """Fail with a diff and the command that updates the file; with MEMCG_TRACER_UPDATE_GOLDEN=1, write it."""
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == expected:
        return
    difference = "\n".join(
        difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
    )
    command = f"{UPDATE}=1 .venv/bin/pytest '{node_id}'"
    pytest.fail(f"{difference}\n\nIf this is what it should be: {command}", pytrace=False)
