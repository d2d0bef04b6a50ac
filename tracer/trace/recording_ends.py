"""The reasons why a recording ended (`end_reason` in meta.json), other than the names of signals.

This module imports nothing: the loop of a recorder needs it before Arrow is imported.
"""

from __future__ import annotations

from typing import Final

COMMAND_ENDED: Final = "command_ended"
"""The end reason of a recording whose command ended first."""

DURATION: Final = "duration"
"""The end reason of a recording whose requested duration was over."""

QUIET: Final = "quiet"
"""The end reason of a trace of `watch` after which nothing more happened."""

CONTINUED: Final = "continued"
"""The end reason of a trace of `watch` that was long enough: the next trace begins where this one ends."""

WRITE_FAILED: Final = "write_failed"
"""The end reason of a trace that could not be written to its end."""
