"""The columns by which `evictions` can sum; the command line needs their names without pandas."""

from __future__ import annotations

from typing import Final

GROUPINGS: Final = ("file", "cgroup", "cause", "process")
