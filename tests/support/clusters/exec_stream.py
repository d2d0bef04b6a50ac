"""The stream of an `exec` over a websocket, as a kubelet and the API server answer it."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

_MAGIC: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""
_STDOUT, _STDERR, _ERROR = 1, 2, 3
"""Channels of the stream (k8s.io/apimachinery, remotecommand)."""


def answer_exec(handler: BaseHTTPRequestHandler, run: dict[str, Any]) -> None:
    """Answer a request with what a command printed and its status: `out`, `error` and `code`, each optional.

    The request must ask for a websocket. The connection is closed afterwards.
    """
    asked = handler.headers
    protocol = asked["Sec-WebSocket-Protocol"].split(",")[0].strip()
    key = base64.b64encode(hashlib.sha1((asked["Sec-WebSocket-Key"] + _MAGIC).encode()).digest())
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", key.decode())
    handler.send_header("Sec-WebSocket-Protocol", protocol)
    handler.end_headers()
    _frame(handler, _STDOUT, run.get("out", "").encode())
    _frame(handler, _STDERR, run.get("error", "").encode())
    end: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if code := run.get("code", 0):
        causes = [{"reason": "ExitCode", "message": str(code)}]
        end |= {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        end |= {"message": f"command terminated with non-zero exit code: exit status {code}"}
    _frame(handler, _ERROR, json.dumps(end).encode())
    handler.wfile.write(b"\x88\x02" + struct.pack(">H", 1000))
    handler.wfile.flush()
    handler.close_connection = True


def _frame(handler: BaseHTTPRequestHandler, channel: int, data: bytes) -> None:
    text = bytes([channel]) + data
    handler.wfile.write(b"\x82\x7f" + struct.pack(">Q", len(text)) + text)
    handler.wfile.flush()
