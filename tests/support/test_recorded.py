"""The recorded examples are those of the repository, whatever else is in `traces/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.recorded import NAMES, TRACES

TOP = TRACES.parent


def test_examples_are_the_traces_that_git_does_not_ignore() -> None:
    kept = {line.strip("!/*\n") for line in (TOP / ".gitignore").open() if line.startswith("!traces/")}
    assert {f"traces/{name}" for name in (*NAMES, "example")} == kept
    assert all((TOP / name / "meta.json").exists() for name in kept)


def test_test_that_lists_the_traces_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(TRACES)
    monkeypatch.chdir(TRACES)
    for path in (TRACES, TRACES / "anon/..", str(TRACES), tmp_path / "link", Path()):
        with pytest.raises(RuntimeError, match="lists no traces/"):
            list(Path(path).iterdir())
        with pytest.raises(RuntimeError, match="lists no traces/"):
            sorted(Path(path).glob("*"))
        with pytest.raises(RuntimeError, match="lists no traces/"):
            list(os.walk(path))
    assert list((TRACES / "anon").iterdir())
