"""The systemd unit that runs the flight recorder: packaging/memcg-tracer.service with another command."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
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
