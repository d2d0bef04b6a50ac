"""The pictures of the README: `python docs/picture.py VERB TRACE` writes docs/VERB.svg.

The verb runs in a terminal of 100 columns, and what it draws there is the picture. `make pictures` draws all.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

COLUMNS: Final = 100
ROWS: Final = 60
READ_BYTES: Final = 65536


def drawn_in_a_terminal(argv: list[str]) -> str:
    """What a command writes when its standard output is a terminal, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = subprocess.Popen(argv, stdout=theirs, env=environment | {"TERM": "xterm-256color"})
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    if command.wait() != 0:
        sys.exit(f"picture: {' '.join(argv)} ended with status {command.returncode}")
    return output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, READ_BYTES)
    except OSError:  # EIO: the other side is closed (pty(7))
        return b""


def svg(text: str, title: str) -> str:
    """The text, with its colours, as a picture that is the same each time."""
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(text.rstrip("\n")))
    picture = console.export_svg(title=title, unique_id="memcg-tracer")
    # Nothing is to be fetched when the picture is looked at: the viewer's own monospace font will do.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main(verb: str, trace: str) -> None:
    drawn = drawn_in_a_terminal([sys.executable, "-m", "tracer", verb, trace])
    Path(__file__).with_name(f"{verb}.svg").write_text(svg(drawn, f"memcg-tracer {verb} {trace}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
