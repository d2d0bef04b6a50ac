"""The kernel log of this machine since its boot: from the journal, or else from the kernel's own buffer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from tracer.errors import TracerError
from tracer.kernel.kmsg import log_files
from tracer.kernel.kmsg.log_files import Log

if TYPE_CHECKING:
    from typing import BinaryIO

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"  # the user's own PATH may name a directory of others
_COMMANDS: Final = (
    ("journalctl", "-k", "-q", "--no-pager", "-o", "short-iso-precise"),
    ("dmesg", "--time-format", "iso"),
    ("dmesg",),  # of busybox
)


def read() -> tuple[str, Log] | None:
    """Return the command whose output has kills, and these; without kills, a command whose output was read.

    None: no log can be read. A reader without root may get nothing, and dmesg of macOS has no log of Linux.
    """
    if sys.platform != "linux":
        return None
    readable: tuple[str, Log] | None = None
    for command in _COMMANDS:
        shown = "journalctl -k" if command[0] == "journalctl" else "dmesg"
        with suppress(OSError, TracerError):
            log = _output_of(command, shown)
            if log is not None:
                readable = readable or (shown, log)
                if log.reports or log.other_kills:
                    return shown, log
    return readable


def _output_of(command: tuple[str, ...], shown: str) -> Log | None:
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        return None
    with subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": _PATH, "LC_ALL": "C"},
    ) as process:
        try:
            return log_files.read_stream(cast("BinaryIO", process.stdout), shown)
        finally:
            process.kill()
