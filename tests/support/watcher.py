"""`memcg-tracer watch` in the background, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from support.recorder import WITHIN_S

from tracer.errors import TracerError

_POLL_S: Final = 0.002
_KILL: Final = '{"kill": '
_SOON_QUIET: Final = "from tracer.watch import stories\nstories.QUIET_S = 1.0\n"
_MAIN: Final = "from tracer import cli\ncli.main()\n"


class Watcher:
    """A flight recorder that runs in `folder` and writes its traces to folder/traces.

    Its outputs are files, so that it never waits for a reader. Leaving the context kills it if it still runs.
    `is_soon_quiet`: its traces end a second after the last event, and not after five. `setup` is code that
    runs before it.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        env: dict[str, str] | None = None,
        is_soon_quiet: bool = False,
        setup: str = "",
    ) -> None:
        self.folder = folder
        self.directory = folder / "traces"
        self._ready = folder / "ready"
        self._ready.unlink(missing_ok=True)
        places = ["--out", str(self.directory), "--ready-file", str(self._ready)]
        setup += _SOON_QUIET if is_soon_quiet else ""
        program = ["-c", setup + _MAIN] if setup else ["-m", "tracer"]
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *program, "watch", *places, *options],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def stderr(self) -> str:
        """Return what it has printed on stderr."""
        return os.fsdecode((self.folder / "stderr").read_bytes())

    @property
    def lines(self) -> list[str]:
        """Return the complete lines about traces that it has printed on stdout."""
        return [line for line in self._lines if not line.startswith(_KILL)]

    @property
    def kills(self) -> list[dict[str, Any]]:
        """Return the kills that it has printed with their causes, as `--json` does."""
        return [json.loads(line)["kill"] for line in self._lines if line.startswith(_KILL)]

    @property
    def _lines(self) -> list[str]:
        return os.fsdecode((self.folder / "stdout").read_bytes()).split("\n")[:-1]

    @property
    def traces(self) -> list[Path]:
        """Return the traces in its directory, the oldest first; not those that are only begun."""
        if not self.directory.exists():
            return []
        return sorted(path for path in self.directory.iterdir() if not path.name.startswith("."))

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait for a condition.

        Raises TracerError with its output if it ends before that, or after `WITHIN_S`, when it is killed. The
        condition, which may ask the recorder, is asked no more after that.
        """
        deadline_s = time.monotonic() + WITHIN_S
        while not condition():
            if is_late := time.monotonic() > deadline_s:
                self.kill()
            if self.process.poll() is not None:
                what = f"did not get there within {WITHIN_S:g} s" if is_late else "ended before that"
                raise TracerError(f"waited for a condition, but watch {what}: {self.stderr or 'no output'}")
            time.sleep(_POLL_S)

    def wait_until_ready(self) -> Self:
        """Wait until all probes are attached."""
        self.wait_for(self._ready.exists)
        return self

    def wait_for_trace(self) -> Path:
        """Wait for the first trace, and return its path."""
        self.wait_for(lambda: self.traces)
        return self.traces[0]

    def wait_for_lines(self, count: int = 1) -> list[str]:
        """Wait for so many lines on stdout, and return them."""
        self.wait_for(lambda: len(self.lines) >= count)
        return self.lines

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Wait for its end, and return its exit status."""
        return self.process.wait(timeout=WITHIN_S)

    def stop(self) -> list[str]:
        """End it by SIGTERM, assert that it succeeded, and return the lines on stdout."""
        self.send(signal.SIGTERM)
        assert self.end() == 0, self.stderr
        return self.lines
