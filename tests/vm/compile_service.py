"""Compilation of guests' programs on the host: an emulated compiler takes minutes.

A guest puts a request into the folder `compile` of its results (compiler.sh), and waits for the answer there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

COMPILE: Final = Path(__file__).with_name("compile_here.py")


class CompileService:
    """Serves the requests in a folder, each by a process of its own."""

    def __init__(self, folder: Path, program: Path = COMPILE) -> None:
        folder.mkdir()
        self._folder = folder
        self._program = program
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Begin with requests that are new, and report those that failed; call it regularly."""
        for request in self._folder.glob("*.request"):
            if request not in self._running:
                with request.with_suffix(".log").open("wb") as log:
                    self._running[request] = subprocess.Popen(
                        [sys.executable, self._program, request, request.with_suffix(".object")],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
        for request, process in self._running.items():
            if process.poll():
                request.with_suffix(".failed").touch()

    def stop(self) -> None:
        """End the processes that still run."""
        for process in self._running.values():
            process.kill()
            process.wait()


def can_compile() -> bool:
    """Return whether this process may compile for guests: BCC creates the maps of what it compiles."""
    return os.geteuid() == 0
