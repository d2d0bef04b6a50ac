"""URLs in place of paths: recognised, and shown without their secrets."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_USER: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/@:\s?]*):[^/\s]*@|(?P<alone>[^/@:\s?]+)@)"
)
_PARAMETERS: Final = re.compile(r"(://[^\s?'\"<>]*\?)([^\s'\"<>]+)")
_VALUE: Final = re.compile(r"(^|[&;])([^=&;#]*=)?[^&;#]+")
_USERS: Final = frozenset(
    {"sftp", "ssh", "ftp", "ftps", "smb", "hdfs", "webhdfs", "abfs", "abfss", "az", "wasb", "wasbs"}
)
"""Schemes of URLs in which a single name before the `@` is a user or a container, and not a token."""


def is_url(text: str) -> bool:
    """Return whether a text is a URL, and not a path."""
    return _URL.match(text) is not None


def shown_url(text: str) -> str:
    """Return a text with `***` for what may be secret in each URL in it: a password, a token before the `@`,
    and the value of every parameter (`?sig=`, `?token=`)."""
    hidden = _USER.sub(_without_password, text)
    return _PARAMETERS.sub(lambda found: found[1] + _VALUE.sub(r"\1\2***", found[2]), hidden)


def _without_password(found: re.Match[str]) -> str:
    if found["alone"] is None:
        return f"{found['scheme']}://{found['user']}:***@"
    return found[0] if found["scheme"].lower() in _USERS else f"{found['scheme']}://***@"
