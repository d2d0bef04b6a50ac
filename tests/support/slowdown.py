"""How long tests wait: MEMCG_TRACER_SLOWDOWN (environment) makes every time limit so many times as long."""

from __future__ import annotations

import os
from typing import Final

SLOWDOWN: Final = float(os.environ.get("MEMCG_TRACER_SLOWDOWN") or 1)
"""1 on a real machine; tests/vm sets it for an emulated one."""
