"""Losses of a recording, in a form that a failed comparison shows whole."""

from __future__ import annotations

from typing import Any, Final

_FEW: Final = 50
_OF_ADDITIONS: Final = ("pagecache", "code_sample")


def all_lost(trace: Any) -> dict[str, int]:
    """Return stream -> records lost, of the streams that lost any.

    Without CPU time: it is lost when the kernel does not report a switch, which no test can prevent.
    """
    lost = trace.loss.groupby("stream", observed=True)["lost"].sum()
    return {stream: int(count) for stream, count in lost.items() if stream != "task_time"}


def lost_records(trace: Any) -> dict[str, int]:
    """Return the same without what no test on this kernel can prevent either.

    Since v7.0, the kernel skips the programs of an addition to the page cache while another task is preempted
    inside them on that CPU (`loss` in docs/trace-format.md). A few additions of any task of the machine may
    be lost so. Mostly they are the recorder's own: it preempts the program that wakes it.
    """
    found = all_lost(trace)
    if int(trace.meta["kernel_release"].partition(".")[0]) >= 7:
        found = {stream: lost for stream, lost in found.items() if stream not in _OF_ADDITIONS or lost > _FEW}
    return found
