"""Files that a verb writes: complete or absent, readable by their owner only, and never overwritten by
mistake."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from tracer.directory import Directory, require_own_links
from tracer.errors import TracerError, UsageError

STDOUT: Final = Path("-")


def check_output(output: Path, force: bool) -> None:
    """Raise those errors of `write_output` that are known before the work: UsageError or TracerError."""
    if output == STDOUT:
        return
    try:
        require_own_links(output.parent)
        mode = output.lstat().st_mode
    except FileNotFoundError:
        _check_folder(output.parent)
        return
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{output} is a directory: name a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # /dev/null must not be replaced
        raise UsageError(f"{output} is a device or a pipe, which a file would replace: name a file")
    if not force:
        raise TracerError(f"{output} exists: name another file, or replace it with -f")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise TracerError(f"cannot write to {folder}: name a file in a folder that you may write to")


def write_output(output: Path, pieces: Iterable[str] | Iterable[bytes]) -> None:
    """Write all of the text (as UTF-8) or bytes, or nothing, and print the path. `-` is standard output.

    Only the owner can read the file, because it contains names of processes and cgroups. Raises TracerError.
    """
    encoded = (piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    if output == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.writelines(encoded)
        return
    try:
        require_own_links(output.parent)
        with Directory.open(output.parent.resolve()) as folder:
            folder.write_whole(output.name, encoded)
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    click.echo(output)
