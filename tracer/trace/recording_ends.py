"""The reasons why a recording ended (`end_reason` in meta.json), other than the names of signals.

This module imports nothing: the loop of a recorder needs it before Arrow is imported.
"""

from __future__ import annotations

from typing import Final

COMMAND_ENDED: Final = "command_ended"
DURATION: Final = "duration"  # the requested duration was over
QUIET: Final = "quiet"  # of a trace of `watch`: nothing more happened
CONTINUED: Final = (
    "continued"  # of a trace of `watch` that was long enough: the next one begins where it ends
)
WRITE_FAILED: Final = "write_failed"  # the trace could not be written to its end
