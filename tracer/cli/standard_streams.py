"""The three standard streams, even if they are closed, full, or have a poor encoding.

A failed write to standard output is an error. A failed write to standard error is ignored, so that a
recording goes on when nobody reads its progress.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

from tracer.errors import TracerError

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
