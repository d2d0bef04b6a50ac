"""Why something was not run."""

from __future__ import annotations


class NotRunError(Exception):
    """What could not be had or started, in one line. Never the same as passed."""
