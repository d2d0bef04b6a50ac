"""The reasons why a recording ended, in words."""

from __future__ import annotations

from typing import Final

from tracer.render.words.escape import visible
from tracer.trace.recording_ends import COMMAND_ENDED, CONTINUED, DURATION, QUIET, WRITE_FAILED

_WORDS: Final = {
    COMMAND_ENDED: "when its command ended",
    DURATION: "after the given time (-d)",
    QUIET: "when nothing more had happened for 5 s",
    CONTINUED: "when it was long enough; the next trace goes on",
    WRITE_FAILED: "because the trace could not be written",
    "failed": "because the recorder failed",
    "command_not_started": "because its command could not be started",
}


def end_in_words(reason: str) -> str:
    """Return an end reason of meta.json in words: `when its command ended`, or `by SIGINT` for a signal."""
    if reason.startswith("SIG"):
        return f"by {visible(reason)}"
    return _WORDS.get(reason) or visible(reason)
