"""From a file, or standard input, to the OOM reports in the log that it holds."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Final

from tracer.errors import TracerError
from tracer.kernel.kmsg import grammar, lines
from tracer.kernel.kmsg.facts import LogReport

_KMSG: Final = Path("/dev/kmsg")
_CHUNK_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_OF_OTHER_FORMATS: Final = (
    (b"\xfd7zXZ\x00", "xz: give it to xzcat, and what that prints to --kmsg -"),
    (b"\x28\xb5\x2f\xfd", "zstd: give it to zstdcat, and what that prints to --kmsg -"),
    (b"BZh", "bzip2: give it to bzcat, and what that prints to --kmsg -"),
    (b"LPKSHHRH", "a journal: give it to journalctl -k --file, and what that prints to --kmsg -"),
)
"""How a file that is no text begins -> what to do."""


def read(log: str) -> Iterator[LogReport]:
    """The reports in a file (text, or gzip of text), or in standard input for `-`.

    TracerError where it is neither.
    """
    if log != "-" and _KMSG.exists() and _KMSG.samefile(log):
        raise TracerError(f"{log} has no end: give what dmesg prints to --kmsg -")
    name = "standard input" if log == "-" else log
    with nullcontext(sys.stdin.buffer) if log == "-" else Path(log).open("rb") as stream:
        chunks = _text(_chunks(stream), name)
        first = next(chunks, b"")
        for beginning, what in _OF_OTHER_FORMATS:
            if first.startswith(beginning):
                raise TracerError(f"{name} is {what}")
        is_any = False
        for report in grammar.reports(lines.split(_chained(first, chunks))):
            is_any = True
            yield report
    if not is_any and b"\0" in first:
        raise TracerError(f"{name} is no text: give what dmesg or journalctl -k prints, or a kern.log")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _text(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """What the pieces of a file hold: of gzip, what was compressed, in pieces of bounded size."""
    first = next(chunks, b"")
    pieces = _chained(first, chunks)
    if not first.startswith(_GZIP):
        return pieces
    return _unzipped(pieces, name)


def _unzipped(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The content of gzip's members, one after the other; of a file that was cut, what is there."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    for piece in pieces:
        rest = piece
        while rest:
            if member.eof:
                member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                yield member.decompress(rest, _CHUNK_BYTES)
            except zlib.error as error:
                raise TracerError(f"{name} is gzip, and broken: {error}") from None
            rest = member.unused_data.lstrip(b"\0") if member.eof else member.unconsumed_tail
