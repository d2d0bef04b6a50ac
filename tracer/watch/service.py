"""The flight recorder as a service: its systemd unit, and its messages to the manager that started it.

The unit is packaging/memcg-tracer.service with another command. Messages (sd_notify(3)) are datagrams of
`NAME=value` lines to the socket that $NOTIFY_SOCKET names. Without that variable, nothing is sent. A message
that cannot be sent is dropped: recording matters more.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Final

NAME: Final = "memcg-tracer.service"
STATE_FOLDER: Final = "/var/lib/memcg-tracer"
"""The directory that StateDirectory= of the unit creates."""

_COMMAND: Final = "ExecStart=memcg-tracer watch"
_NETWORK: Final = "RestrictAddressFamilies=AF_UNIX AF_INET\nPrivateNetwork=yes\n"
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "%": "%%"}


def unit_text(
    program: str, arguments: Sequence[str], *, folder: str | None = None, needs_network: bool = False
) -> str:
    """Return the unit that runs `program watch ARGUMENTS`; `program` is an absolute path.

    `folder` is the absolute path of the directory to which these arguments write traces; None: STATE_FOLDER.
    With `needs_network`, the service may use the network.
    """
    text = (resources.files("tracer.watch") / "packaging" / NAME).read_text(encoding="utf-8")
    command = [quoted(program), "watch", *(quoted(word).replace("$", "$$") for word in arguments)]
    replaced = {_COMMAND: f"ExecStart={' '.join(command)}"}
    if needs_network:
        replaced[_NETWORK] = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"
    if folder is not None:
        replaced["StateDirectory=memcg-tracer\n"] = (
            f"StateDirectory=memcg-tracer\nReadWritePaths={quoted(folder)}\n"
        )
    for before, after in replaced.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def quoted(word: str) -> str:
    """Return a word quoted for a unit (systemd.syntax(7), "Quoting"), with `%` doubled.

    `$` remains: systemd replaces variables in the arguments of a command, but not in its path. `word` comes
    from os.fsdecode.
    """
    if re.fullmatch(r"[\w@%+=:,./-]+", word, flags=re.ASCII):
        return word.replace("%", "%%")
    return f'"{"".join(_escaped(character) for character in word)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


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
    """Return half of the service manager's time limit for `alive`; None if it sets none."""
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
