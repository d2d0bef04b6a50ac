"""Losses of a recording, in a form that a failed comparison shows whole."""

from __future__ import annotations

from typing import Any, Final

_FEW: Final = 3


def lost_records(trace: Any) -> dict[str, int]:
    """Return stream -> records lost, of the streams that lost any.

    Without what no test can prevent: CPU time, which is lost when the kernel does not report a switch; and,
    since v7.0, a few additions to the page cache of the machine. The kernel skips the program of an addition
    while another task is preempted inside it on that CPU (`loss` in docs/trace-format.md).
    """
    lost = trace.loss.groupby("stream", observed=True)["lost"].sum()
    found = {stream: int(count) for stream, count in lost.items() if stream != "task_time"}
    if int(trace.meta["kernel_release"].partition(".")[0]) >= 7 and found.get("pagecache", 0) <= _FEW:
        found.pop("pagecache", None)
    return found
