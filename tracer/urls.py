"""URLs in place of paths: what is one, and what may be shown of it."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_PASSWORD: Final = re.compile(r"(://[^/@:\s]*):[^/\s]*@")


def is_url(text: str) -> bool:
    """Return whether a text names a place by a URL, and not by a path."""
    return _URL.match(text) is not None


def shown_url(text: str) -> str:
    """Return a text with `***` for the password of each URL in it."""
    return _PASSWORD.sub(r"\1:***@", text)
