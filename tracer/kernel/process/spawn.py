"""The start of a command in a cgroup, where it waits at a gate until every probe is attached."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from tracer.errors import TracerError
from tracer.kernel.process import gate
from tracer.kernel.process.children import argv_of_script
from tracer.kernel.process.priority import HeadStart

_READY_WITHIN_S = 20.0
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as the shell: POSIX, "Exit Status for Commands"


class CommandError(TracerError):
    """The command could not be started; `exit_code` is the exit status that a shell would return."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class GatedCommand:
    """A process that waits at its gate; after `release`, the same process is the command."""

    process: subprocess.Popen[bytes]
    argv: tuple[str, ...]
    gate: FileIO
    status: FileIO

    def release(self) -> None:
        """Let the command run, and return after its exec; may be called once.

        Raises CommandError (exit status 127 or 126) if it cannot be executed; the process is gone then.
        """
        try:
            self.gate.write(b"g")
            refused = self.status.read(16)
        except BrokenPipeError as error:
            self.process.wait()
            raise CommandError(f"{self.argv[0]!r} was ended before it could run", _NOT_EXECUTABLE) from error
        finally:
            self._close()
        if refused:
            self.process.wait()
            raise _refusal(self.argv[0], int(refused))

    def abandon(self) -> None:
        """End a process that is still at the gate, without running the command; wait for its end."""
        self._close()
        self.process.wait()

    def _close(self) -> None:
        self.gate.close()
        self.status.close()


def spawn(cgroup: Path | None, argv: Sequence[str], output_fd: int | None = None) -> GatedCommand:
    """Start a process in `cgroup` (None: in ours) that becomes `argv` when it is released.

    It has our standard streams (with `output_fd`: nothing to read, and that file to print to), our working
    directory and our environment. Raises TracerError if the process cannot be moved into the cgroup.
    """
    gate_end, gate_fd = os.pipe()
    status_fd, status_end = os.pipe()
    opened, status = FileIO(gate_fd, "w"), FileIO(status_fd, "r")
    try:
        process = subprocess.Popen(
            argv_of_script(gate.__file__, str(gate_end), str(status_end), *argv),
            pass_fds=(gate_end, status_end),
            stdin=None if output_fd is None else subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
        )
    except OSError as error:
        opened.close()
        status.close()
        raise TracerError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(gate_end)
        os.close(status_end)
    command = GatedCommand(process, tuple(argv), opened, status)
    try:
        with HeadStart(process.pid):
            _await_ready(command)
        if cgroup is not None:
            Path(cgroup, "cgroup.procs").write_text(str(process.pid), encoding="ascii")
    except BaseException as error:
        process.kill()
        command.abandon()
        if isinstance(error, OSError):
            raise TracerError(f"cannot put a process into {cgroup}: {error.strerror}") from error
        raise
    return command


def _await_ready(command: GatedCommand) -> None:
    """Wait until the process has started up, so that the memory for that is not charged to the cgroup."""
    readable, _, _ = select.select([command.status], [], [], _READY_WITHIN_S)
    if not readable or command.status.read(1) != b"r":
        raise TracerError(f"{sys.executable} did not start within {_READY_WITHIN_S:.0f} s: try again")


def _refusal(program: str, error: int) -> CommandError:
    if error in (errno.ENOENT, errno.ENOTDIR):
        return CommandError(f"command not found: {program!r} (or the interpreter that it names)", _NOT_FOUND)
    return CommandError(f"cannot run {program!r}: {os.strerror(error)}", _NOT_EXECUTABLE)
