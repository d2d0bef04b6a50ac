"""Losses of a recording, in a form that a failed comparison shows whole."""

from __future__ import annotations

from typing import Any


def lost_records(trace: Any) -> dict[str, int]:
    """Return stream -> records lost, of the streams that lost any.

    Without CPU time: that is lost when the kernel does not report a switch, which no test can prevent.
    """
    lost = trace.loss.groupby("stream", observed=True)["lost"].sum()
    return {stream: int(count) for stream, count in lost.items() if stream != "task_time"}
