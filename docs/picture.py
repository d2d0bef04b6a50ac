"""The pictures of the README: `python docs/picture.py VERB TRACE` writes docs/VERB.svg.

The picture shows the output of the verb in a terminal of 100 columns. `make pictures` draws all pictures.
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
    """Return the output of a command on a terminal, including escape sequences."""
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
    """Return the text with its colours as an SVG picture; the same text always gives the same picture."""
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(text.rstrip("\n")))
    picture = console.export_svg(title=title, unique_id="memcg-tracer")
    # The picture must not fetch a font: the monospace font of the viewer is used.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main(verb: str, trace: str) -> None:
    drawn = drawn_in_a_terminal([sys.executable, "-m", "tracer", verb, trace])
    Path(__file__).with_name(f"{verb}.svg").write_text(svg(drawn, f"memcg-tracer {verb} {trace}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
