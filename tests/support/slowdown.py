"""The factor for every time limit of the tests: MEMCG_TRACER_SLOWDOWN in the environment."""

from __future__ import annotations

import os
from typing import Final

SLOWDOWN: Final = float(os.environ.get("MEMCG_TRACER_SLOWDOWN") or 1)
"""1 on a real machine; tests/vm sets it for an emulated one."""
