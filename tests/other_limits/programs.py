"""Programs of many kinds, whose runs at other limits are compared with what `whatif` says about them.

All of them end, and do the same work each time, some with other timing.
"""

from __future__ import annotations

from typing import Final

from other_limits.installed import INSTALLED
from other_limits.made import MADE

PROGRAMS: Final = {one.name: one for one in (*MADE, *INSTALLED)}
