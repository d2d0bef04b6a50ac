"""The command of a recording: checked before anything is made, waited for, and ended with the recording."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.loop import Loop, StopSignals
from tracer.kernel.process.spawn import CommandError, GatedCommand
from tracer.trace.recording_ends import COMMAND_ENDED

_GRACE_S: Final = 2.0


def require_command(program: str) -> None:
    """Raise CommandError, with a shell's exit status, for a program that exec cannot run."""
    if shutil.which(program):
        return
    places = [Path(program)] if "/" in program else [Path(folder, program) for folder in os.get_exec_path()]
    if program and any(place.exists() for place in places):
        raise CommandError(f"cannot run {program!r}: it is not an executable file", 126)
    raise CommandError(f"command not found: {program!r}", 127)


def run_until_command_ends(loop: Loop, command: GatedCommand, stop: StopSignals, deadline_s: float) -> str:
    """Run the loop until the command has ended. Return the end reason of the recording.

    If the recording ends first, the command gets the signal that ended the recording (SIGTERM at the
    deadline), and SIGKILL two seconds later or at a second signal.
    """
    pidfd = os.pidfd_open(command.process.pid)
    try:
        end_reason = loop.run(deadline_s, pidfd)
        if end_reason != COMMAND_ENDED:
            number = stop.take() or signal.SIGTERM
            if not _has_reached_command(number):
                signal.pidfd_send_signal(pidfd, number)
            if loop.run(time.monotonic() + _GRACE_S, pidfd) != COMMAND_ENDED:  # or at a second signal
                command.process.kill()
    finally:
        os.close(pidfd)
    command.process.wait()
    return end_reason


def end_command(command: GatedCommand) -> None:
    """Kill the command if it still runs, so that no process is left behind."""
    if command.process.poll() is None:
        command.process.kill()
    with suppress(OSError):
        command.abandon()


def _has_reached_command(number: int) -> bool:
    """Return whether the command has already received the signal.

    Ctrl-C goes to all of a terminal's foreground group (isig in drivers/tty/n_tty.c). A second SIGINT would
    make many programs skip their clean-up. A SIGINT that was sent to the recorder alone, while it is in the
    foreground, looks the same: the command then gets no signal, and is killed after the grace period.
    """
    if number != signal.SIGINT:
        return False
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
