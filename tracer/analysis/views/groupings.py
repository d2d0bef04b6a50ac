"""What `evictions` can sum by. The command line needs these words where pandas is not loaded."""

from __future__ import annotations

from typing import Final

GROUPINGS: Final = ("file", "cgroup", "cause", "process")
