"""A child with a terminal of its own, for tests of what is shown and how the terminal is left."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from support.slowdown import SLOWDOWN

TOP: Final = Path(__file__).parents[3]
WITHIN_S: Final = 30 * SLOWDOWN
_OWN_TERMINAL: Final = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class OnPty:
    """A Python script with a terminal of its own, of which it is the session's leader."""

    def __init__(
        self,
        script: str,
        size: tuple[int, int] = (24, 80),
        cwd: Path = TOP,
        env: dict[str, str] | None = None,
    ) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.master, size)
        self.before = termios.tcgetattr(self.slave)
        self.read = b""
        self.child = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL + script],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(TOP), "TERM": "xterm-256color"} | (env or {}),
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_for(self, text: bytes) -> None:
        """Wait until it has written a text, since the last `forget`."""
        end_s = time.monotonic() + WITHIN_S
        while text not in self.read:
            assert time.monotonic() < end_s, self.read
            if select.select([self.master], [], [], 0.1)[0]:
                self.read += os.read(self.master, 1 << 16)

    def forget(self) -> None:
        """Forget what it has written."""
        self.read = b""

    def send(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self.master, keys)

    def end(self) -> tuple[int, bytes]:
        """Wait for the child; return its status and stderr."""
        _, stderr = self.child.communicate(timeout=WITHIN_S)
        while select.select([self.master], [], [], 0)[0]:
            self.read += os.read(self.master, 1 << 16)
        return self.child.returncode, stderr

    @property
    def modes(self) -> list[Any]:
        """Return the modes of the terminal, as termios does."""
        return termios.tcgetattr(self.slave)


@contextmanager
def on_pty(script: str, ready: bytes = b"<ready>", **options: Any) -> Iterator[OnPty]:
    """Run a script, once it has written `ready`; its process group is killed at the end."""
    one = OnPty(script, **options)
    try:
        one.wait_for(ready)
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.killpg(one.child.pid, signal.SIGKILL)
        one.child.wait()
        os.close(one.master)
        os.close(one.slave)
