"""Folders of traces, which are copies of recorded examples, and the graphs that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.parallel.forked_workers import ForkedWorker
from support.recorded import copy_examples
from support.storing.summarized import summaries_kept

from tracer.fleet.reduction import worker_processes
from tracer.fleet.reduction.fleet_answer import answer
from tracer.fleet.reduction.inputs import find
from tracer.fleet.reduction.partial_state import Partial
from tracer.fleet.reduction.piece_reader import TracePiece
from tracer.fleet.reduction.work_tree import WorkTree, together, tree

CopyTraces = Callable[..., Path]
NAMES = ("anon", "cow", "fork", "slab")


def work_of(folder: Path, *more: Any) -> WorkTree:
    """Return the graph of the traces below a folder, each of a boot of its own, and of further pieces."""
    traces = {TracePiece(place): [place.path] for place in find([str(folder)]).traces}
    return tree(together(traces | {piece: [] for piece in more}))


def document(state: Partial) -> dict[str, Any]:
    return answer(state).to_dict()


@pytest.fixture(scope="module", autouse=True)
def kept() -> Iterator[None]:
    with summaries_kept():
        yield


@pytest.fixture
def copy_traces(tmp_path: Path) -> CopyTraces:
    """Return a function that copies examples to `tmp_path/folder/<name>` and returns that folder."""

    def copy(*names: str, folder: str = "traces") -> Path:
        return copy_examples(tmp_path / folder, names)

    return copy


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes be forks of this process."""
    monkeypatch.setattr(worker_processes, "start_module", ForkedWorker)
