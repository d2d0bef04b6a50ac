"""Messages to the service manager that started `watch` (sd_notify(3)): ready, alive, status, stopping.

The protocol is a datagram of `NAME=value` lines to the socket that $NOTIFY_SOCKET names. Without that
variable, nothing is sent. A message that cannot be sent is dropped: recording matters more.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_PATIENCE_S: Final = 5.0  # for messages that are sent only once


class ServiceManager:
    """The socket of the service manager, if there is one. No message delays the recording loop."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get(_SOCKET, ""))
        self._status = ""

    def ready(self) -> None:
        """Report that the start is complete: every probe is attached."""
        self._send("READY=1", _PATIENCE_S)

    def alive(self) -> None:
        """Report that the loop is running; to be called every `watchdog_interval_s`."""
        self._send("WATCHDOG=1", 0)

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows. An unchanged line is not sent again."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}", 0)

    def stopping(self) -> None:
        """Report that the end has begun."""
        self._send("STOPPING=1", _PATIENCE_S)

    def _send(self, message: str, patience_s: float) -> None:
        if self._address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(patience_s)
            sender.sendto(message.encode("utf-8", "backslashreplace"), self._address)


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return half of the time after which the service manager considers this process hung; None if it does
    not watch this process."""
    pid = environment.get("WATCHDOG_PID", "")
    try:
        interval_us = int(environment.get("WATCHDOG_USEC", ""))
        if interval_us <= 0 or (pid and int(pid) != os.getpid()):
            return None
    except ValueError:
        return None
    return interval_us / 2e6


def _address(name: str) -> bytes | None:
    """Return the address of a socket by its path, or in the abstract namespace by `@name`."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None
