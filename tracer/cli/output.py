"""Files and directories that a verb writes: complete or absent, and never overwritten by accident.

Only their owner can read them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Final

import click

from tracer.cli import standard_streams
from tracer.directory import Directory, require_own_links
from tracer.errors import TracerError, UsageError

STDOUT: Final = Path("-")


def check_output(output: Path, force: bool) -> None:
    """Raise those errors of `write_output` that are known before the work: UsageError or TracerError."""
    mode = None if output == STDOUT else _mode(output)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise UsageError(f"{output} is a directory: name a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # /dev/null must not be replaced
        raise UsageError(f"{output} is a device or a pipe, which a file would replace: name a file")
    if not force:
        raise TracerError(f"{output} exists: name another file, or replace it with -f")


def _mode(output: Path) -> int | None:
    """Return the mode of a file; None if there is none, and its folder can have one. Raises TracerError."""
    try:
        require_own_links(output.parent)
        return output.lstat().st_mode
    except FileNotFoundError:
        _check_folder(output.parent)
        return None
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error


def _check_folder(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise TracerError(f"cannot write to {folder}: name a file in a folder that you may write to")


def write_output(output: Path, pieces: Iterable[str | bytes]) -> None:
    """Write all of the text (as UTF-8) or bytes, or nothing, and print the path. `-` is standard output.

    Only the owner can read the file, because it contains names of processes and cgroups. Raises TracerError.
    """
    encoded = (piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    if output == STDOUT:
        sys.stdout.flush()
        with (
            nullcontext()
            if sys.stdout.isatty()
            else standard_streams.progress_of("writing to standard output")
        ):
            sys.stdout.buffer.writelines(encoded)
        return
    try:
        require_own_links(output.parent)
        with (
            Directory.open(output.parent.resolve()) as folder,
            standard_streams.progress_of(f"writing {output}"),
        ):
            folder.write_whole(output.name, encoded)
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    click.echo(output)


def check_appended(output: Path) -> None:
    """Raise those errors of `append_output` that are known before the work: UsageError or TracerError."""
    mode = _mode(output)
    if mode is None:
        return
    if not stat.S_ISREG(mode):
        raise UsageError(f"{output} is not a regular file: name one, or a new one")
    if not os.access(output, os.W_OK):
        raise TracerError(f"cannot write {output}: {os.strerror(errno.EACCES)}")


def append_output(output: Path, text: str) -> None:
    """Append a text to a file, as the page of a CI job wants it. A new file is readable by its owner only.

    No link is followed at the end of the path. Raises TracerError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        require_own_links(output.parent)
        with open(os.open(output, flags, 0o600), "wb") as file:  # noqa: PTH123  it takes a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TracerError(f"{output} is not a regular file")
            file.write(text.encode())
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error


Write = Callable[[IO[bytes]], None]


def check_folder(output: Path, force: bool, names: Collection[str]) -> None:
    """Raise those errors of `write_folder` that are known before the work: UsageError or TracerError.

    `names` are the names of the files to write. With `force`, a directory without other entries is replaced.
    """
    if output == STDOUT:
        raise UsageError("this format is a directory with a file for each table: name one, instead of -")
    if output.name in ("", ".."):
        raise UsageError(f"{output} is no name for a new directory: name one")
    try:
        mode = output.lstat().st_mode
        entries = {path.name for path in output.iterdir()} if stat.S_ISDIR(mode) else set[str]()
    except FileNotFoundError:
        return
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{output} is no directory, and this format is one: name another")
    if not force:
        raise TracerError(f"{output} exists: name another directory, or replace it with -f")
    if others := sorted(entries - set(names)):
        raise TracerError(f"{output} has other files, such as {others[0]!r}: name another directory")


def write_folder(output: Path, files: Iterable[tuple[str, Write]]) -> None:
    """Write all files into a new directory or nothing, and print its path. An existing directory is replaced.

    Only the owner can read the directory and the files, because they contain names of processes and cgroups.
    Raises TracerError.
    """
    temporary = f".{output.name}.{secrets.token_hex(8)}.tmp"  # nobody can guess it and make it first
    try:
        require_own_links(output.parent)
        with (
            Directory.open(output.parent.resolve()) as parent,
            standard_streams.progress_of(f"writing {output}"),
        ):
            try:
                with parent.subfolder(temporary, make=True) as folder:
                    for name, write in files:
                        with folder.create(name) as file:
                            write(file)
                _put_in_place(parent, temporary, output.name)
            except BaseException:
                _remove_folder(parent, temporary)
                raise
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror or error}") from error
    click.echo(output)


def _put_in_place(parent: Directory, temporary: str, name: str) -> None:
    """Rename the new directory. An existing directory of that name is moved aside, and back on failure."""
    aside = f"{temporary}.old"
    try:
        parent.replace(name, aside)
    except FileNotFoundError:
        parent.replace(temporary, name)
        return
    try:
        parent.replace(temporary, name)
    except BaseException:
        parent.replace(aside, name)
        raise
    _remove_folder(parent, aside)


def _remove_folder(parent: Directory, name: str) -> None:
    with suppress(OSError):
        with parent.subfolder(name) as folder:
            for entry in folder.names():
                folder.unlink(entry)
        parent.rmdir(name)
