"""The error of tests that could not be run."""

from __future__ import annotations


class NotRunError(Exception):
    """Something could not be fetched or started, in one line; such a run has not passed."""
