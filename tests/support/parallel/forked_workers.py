"""Worker processes of a fleet that are forks of the test process, which has imported what they need.

A new interpreter takes half a second of a CPU to import it, and a death in the middle of a message is the
same in a fork. New interpreters are in test_worker_processes.py, and in the first test of each pool's file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from tracer.fleet.reduction import worker


class ForkedWorker:
    """The part of `subprocess.Popen` that `WorkerProcesses` uses."""

    def __init__(self, _module: str, descriptor: str, *, stdin: int, pass_fds: Sequence[int]) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.closerange(3, int(descriptor))
                os.closerange(int(descriptor) + 1, os.sysconf("SC_OPEN_MAX"))
                worker._serve(Connection(int(descriptor)))
            finally:
                os._exit(1)

    def kill(self) -> None:
        """Send SIGKILL, unless the process is known to have ended."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status
