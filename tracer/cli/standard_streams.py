"""The standard streams, even if they are closed, full, or have a poor encoding, and progress on stderr.

A failed write to standard output is an error. A failed write to standard error is ignored, so that a
recording goes on when nobody reads its progress.

Work that may take long shows its progress, and quick work nothing. On a terminal, it is one line with a
spinner, which is gone at the end. Elsewhere, it is a line each 10 s, so that a log shows what a job did.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from tracer.errors import TracerError
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


_ENCODABLE: Final = "memcg-tracer-encodable"


def prepare() -> None:
    """Replace sys.stdin, stdout and stderr, and open closed descriptors, so that no other file gets their
    numbers."""
    for descriptor in range(3):
        _occupy(descriptor)
    codecs.register_error(_ENCODABLE, _encodable)
    sys.stdin = _text(io.BufferedReader(_Input(0, closefd=False)), sys.stdin)
    sys.stdout = _text(io.BufferedWriter(_Output(1, "w", closefd=False)), sys.stdout)
    sys.stderr = _text(io.BufferedWriter(_Diagnostics(2, "w", closefd=False)), sys.stderr)


def abandon_output() -> None:
    """Discard output that could not be written: the interpreter would try to write it again at its end."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  until the process ends


def _occupy(descriptor: int) -> None:
    """Open a closed descriptor for the wrong direction, so that using it still fails."""
    try:
        os.fstat(descriptor)
    except OSError:
        unusable = os.open(os.devnull, os.O_WRONLY if descriptor == 0 else os.O_RDONLY)
        os.dup2(unusable, descriptor, inheritable=True)
        if unusable != descriptor:
            os.close(unusable)


class OutputClosedError(TracerError):
    """Nobody reads standard output any more. `main` then ends the process by SIGPIPE, like other programs."""


class _Input(io.FileIO):
    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise TracerError(f"cannot read standard input: {error.strerror}") from error


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:  # another process made the file non-blocking
                select.select([], [self], [])
        except OSError as error:
            kind = OutputClosedError if isinstance(error, BrokenPipeError) else TracerError
            raise kind(f"cannot write to standard output: {error.strerror}") from error
        return written


class _Diagnostics(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(memoryview(data).cast("B")) if written is None else written


def _text(buffer: io.BufferedReader | io.BufferedWriter, replaced: TextIO | None) -> io.TextIOWrapper:
    encoding = getattr(replaced, "encoding", None) or "utf-8"
    return io.TextIOWrapper(buffer, encoding, _ENCODABLE, line_buffering=buffer.isatty())


def _encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle encoding errors: bytes that are not UTF-8 are kept, other characters become escapes."""
    if isinstance(error, UnicodeDecodeError):
        return codecs.lookup_error("surrogateescape")(error)
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


SWITCH: Final = "MEMCG_TRACER_PROGRESS"
"""The variable of the environment with the seconds until the first line; `off`: no progress at all."""

_FIRST_S: Final = 1.5
_LEAST_S: Final = 0.5
_LOADED_S: Final = time.monotonic()
"""About the start of the verb: imports, which come first, count as its work."""
_EVERY_S: Final = 10.0
_REDRAWN_S: Final = 0.2


class Progress:
    """What is being done, as far as the work says. Only `says` and `counts` are for the work."""

    def __init__(self, what: str) -> None:
        self._what, self._begun_s = what, time.monotonic()
        self._is_done = threading.Event()

    def says(self, what: str) -> None:
        """Set what is being done now: `explaining traces/demo`."""
        self._what = what

    def counts(self, done: int, whole: int) -> None:
        """Set how much of a known amount is done."""
        self._what = f"{done:,} of {whole:,} read"

    def _line(self) -> str:
        return f"memcg-tracer: {visible(self._what)}, {time.monotonic() - self._begun_s:.0f} s"

    def _show(self, first_s: float) -> None:
        if self._is_done.wait(first_s):
            return
        with suppress(OSError, ValueError):  # the work goes on if nobody reads the progress
            if sys.stderr.isatty():
                self._draw()
                return
            while True:
                print(self._line(), file=sys.stderr, flush=True)
                if self._is_done.wait(_EVERY_S):
                    return

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        spinner = Spinner("dots", Text(self._line()))
        # stdout stays as it is: verbs write bytes to it, for which rich's stand-in has no room.
        with Live(spinner, console=Console(stderr=True), transient=True, redirect_stdout=False):
            while not self._is_done.wait(_REDRAWN_S):
                spinner.update(text=Text(self._line()))


_outer: list[Progress] = []


@contextmanager
def progress_of(what: str) -> Iterator[Progress]:
    """Show `what` with the time that it has taken, if it is long, until the end of the context.

    The first line comes 1.5 s after the start of the verb, and not within the first 0.5 s. Write to a
    terminal only after the context. Within another context, this only says what is being done. The work goes
    on without progress if no thread can be started.
    """
    if _outer:
        _outer[0].says(what)
        yield _outer[0]
        return
    progress, first_s = Progress(what), os.environ.get(SWITCH, str(_FIRST_S))
    thread = threading.Thread(target=progress._show, args=(_wait_s(_seconds(first_s)),), daemon=True)
    is_shown = False
    if first_s != "off":
        with suppress(RuntimeError):
            thread.start()
            is_shown = True
    _outer.append(progress)
    try:
        yield progress
    finally:
        _outer.clear()
        progress._is_done.set()
        if is_shown:
            thread.join()


def _wait_s(first_s: float) -> float:
    return max(first_s - (time.monotonic() - _LOADED_S), min(first_s, _LEAST_S))


def _seconds(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return _FIRST_S
