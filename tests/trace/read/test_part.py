"""The check of columns, on a recorded trace."""

from __future__ import annotations

from pathlib import Path

from tracer.trace.read.reader import Trace

RECORDED = Path(__file__).parents[3] / "traces" / "page-cache"


def test_trace_older_than_images_has_null_for_each() -> None:
    trace = Trace(RECORDED)
    images = trace.table("cgroups", ["image"]).column("image")
    assert len(images) == images.null_count == trace.table("cgroups").num_rows > 0
