"""A piece that cannot be read is left out with one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from synthetic.fleets.summary_rows import state

from tracer.fleet.reduction import partial_state, piece_reader
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.piece_reader import TracePiece, read

EXAMPLES = Path(__file__).parents[3] / "traces"


def piece(path: Path) -> TracePiece:
    return TracePiece(Place(str(path), "shown"))


def test_trace_gives_the_rows_of_its_summary() -> None:
    found = read(piece(EXAMPLES / "page-cache"))
    assert found.broken == ()
    assert found.kills["cause"].to_pylist() == ["anon_growth"]
    assert found.sources["trace"].to_pylist() == ["page-cache"]
    for name in partial_state.READ:
        assert getattr(found, name).schema == getattr(state(), name).schema


def test_damaged_trace_is_broken(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{")
    found = read(piece(tmp_path))
    assert found.sources.num_rows == 0
    (broken,) = found.broken
    assert broken.path == "shown"
    assert broken.why
    assert "bug" not in broken.why


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "not enough memory"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied"),
        (pa.ArrowInvalid("not\nParquet"), "not Parquet"),
        (KeyError("comm"), "a bug in memcg-tracer (KeyError: 'comm')"),
    ],
)
def test_any_error_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, why: str) -> None:
    def fail(_trace: object) -> None:
        raise error

    monkeypatch.setattr(piece_reader, "summarize", fail)
    (broken,) = read(piece(EXAMPLES / "anon")).broken
    assert broken.why == why
