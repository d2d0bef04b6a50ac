"""Properties whose examples take a quarter of a second each."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

_QUICK: Final = settings.get_profile("quick").max_examples  # of tests/conftest.py
_EXAMPLES: Final = settings().max_examples

COSTLY: Final = settings(max_examples=5 if _EXAMPLES == _QUICK else _EXAMPLES)
"""Five examples in a quick run, and all of another profile: `make test-varied` has those."""
