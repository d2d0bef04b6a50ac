"""Clients of an HTTP server that go away early, send garbage, or hold a connection."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_WITHIN_S: Final = 60.0
_REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"
_LINGER: Final = struct.pack("ii", 1, 0)
_MOST_HELD: Final = 40


def be_rude(port: int, count: int) -> None:
    """Make so many connections to a port of this machine, each kind of rudeness in turn."""
    held = deque[socket.socket](maxlen=_MOST_HELD)
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", port), _WITHIN_S)
        if number % len(_KINDS) == 0:
            client.sendall(_REQUEST[:20])
            if len(held) == _MOST_HELD:
                held[0].close()
            held.append(client)
            continue
        with client, suppress(OSError):  # the server may close first
            _KINDS[number % len(_KINDS)](client)
    for client in held:
        client.close()


def _nothing(_: socket.socket) -> None:
    """Close at once."""


def _unread_answer(client: socket.socket) -> None:
    client.sendall(_REQUEST)


def _answer_begun(client: socket.socket) -> None:
    client.sendall(_REQUEST)
    client.recv(10)


def _half_a_request(client: socket.socket) -> None:
    client.sendall(_REQUEST[:-2])


def _reset(client: socket.socket) -> None:
    client.sendall(_REQUEST)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


def _refused_answer(client: socket.socket) -> None:
    client.sendall(_REQUEST)
    client.shutdown(socket.SHUT_RDWR)


def _large_header(client: socket.socket) -> None:
    client.sendall(_REQUEST[:-2] + b"X-Large: " + b"x" * (128 << 10) + b"\r\n\r\n")


def _garbage(client: socket.socket) -> None:
    client.sendall(bytes(range(256)) * 8)


def _no_certificate(client: socket.socket) -> None:
    """Speak TLS, without a certificate, and go away as soon as the server may answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(client) as encrypted:
        encrypted.sendall(_REQUEST)


_KINDS: Final[tuple[Callable[[socket.socket], None], ...]] = (
    _nothing,  # in its place, a connection is held
    _nothing,
    _unread_answer,
    _answer_begun,
    _half_a_request,
    _reset,
    _refused_answer,
    _large_header,
    _garbage,
    _no_certificate,
)
