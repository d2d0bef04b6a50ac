"""`memcg-tracer record` in the background, for tests and measurements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from support.slowdown import SLOWDOWN

from tracer.errors import TracerError

WITHIN_S: Final = 60.0 * SLOWDOWN
_POLL_S: Final = 0.002


class Recorder:
    """A recorder that runs in `folder`. Its trace is folder/trace, unless `output` is false.

    `wrapper` is a command line before the interpreter, `launch` the interpreter's arguments before the verb.
    `popen` are further arguments of `Popen`; both outputs are pipes by default. Leaving the context kills the
    recorder if it still runs.
    """

    def __init__(
        self,
        folder: Path,
        *options: str | Path,
        wrapper: Sequence[str] = (),
        launch: Sequence[str] = ("-m", "tracer"),
        output: bool = True,
        **popen: Any,
    ) -> None:
        self.folder = folder
        self.path = folder / "trace"
        self.stdout = self.stderr = ""
        places = ["-o", str(self.path)] if output else []
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*wrapper, sys.executable, *launch, "record", *places, *options], cwd=folder, **{**pipes, **popen}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    @property
    def ready_file(self) -> Path:
        """The path of the file for `wait_until_ready`, which needs the options `--ready-file ready`."""
        return self.folder / "ready"

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait for a condition.

        Raises TracerError with the recorder's output if it ends before that, or after `WITHIN_S`, when it is
        killed. The condition, which may ask the recorder, is asked no more after that.
        """
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            if is_late := time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
            if self.process.poll() is not None:
                what = f"did not get there within {WITHIN_S:g} s" if is_late else "ended before that"
                output = self.end().stderr.strip() or "no output"
                raise TracerError(f"waited for a condition, but the recorder {what}: {output}")
            time.sleep(_POLL_S)

    def wait_until_ready(self) -> Self:
        """Wait until all probes are attached."""
        self.wait_for(self.ready_file.exists)
        return self

    def end(self) -> Self:
        """Wait for the end of the recorder, and collect its output."""
        if not self.stderr:
            stdout, stderr = self.process.communicate(timeout=WITHIN_S)
            self.stdout, self.stderr = (os.fsdecode(text or b"") for text in (stdout, stderr))
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> Path:
        """End the recording by a signal, and return the trace's path as `ended` does."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> Path:
        """Wait for the end of the recorder, assert that it succeeded, and return the trace's path."""
        self.end()
        assert self.process.returncode == 0, self.stderr
        assert self.stdout.splitlines()[-1] == str(self.path), self.stdout
        return self.path
