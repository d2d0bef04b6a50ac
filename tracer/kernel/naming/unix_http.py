"""HTTP over a UNIX socket.

This is a separate module because most recordings start faster without the import of `http.client`.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, url: str, *, timeout_s: float, max_bytes: int) -> bytes | None:
    """Return the body of the response to GET `url`, cut at `max_bytes`; None without a response of status
    200."""
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.read(max_bytes) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
