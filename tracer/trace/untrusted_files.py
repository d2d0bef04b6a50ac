"""The files of a trace that may come from anyone: only regular files below the trace's directory are opened.

The path of the trace may be a symbolic link. Below the trace, every link is refused, and so is every file
that is not regular: a read from a FIFO would block, and a read from a device would not end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from tracer.errors import TraceError

MOST_ENTRIES: Final = 100_000
"""The most entries of a folder in a trace. A part has a million rows, so no recording has as many."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_file(trace: Path, path: Path) -> BinaryIO:
    """Open the file `path` below the directory `trace` for reading.

    Raises FileNotFoundError if there is no such file, NotADirectoryError if `trace` is a file, and TraceError
    if `path` is not a regular file or cannot be opened.
    """
    try:
        with _opened(trace, path.parent) as folder:
            try:
                descriptor = os.open(path.name, _FILE, dir_fd=folder)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _refusal(folder, path, error) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file_of_a_trace(path)
    return os.fdopen(descriptor, "rb")


def names(trace: Path, folder: Path) -> list[str]:
    """Return the names in a folder below the directory `trace`, or in `trace`, in any order; [] if there is
    no such folder.

    Raises TraceError if the folder is not a directory, or holds too many names.
    """
    found: list[str] = []
    try:
        with _opened(trace, folder) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if len(found) == MOST_ENTRIES:
                    raise TraceError(
                        f"{folder} holds more than {MOST_ENTRIES:,} files: no trace is like that"
                    )
                found.append(entry.name)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise TraceError(f"{folder} is not a directory: name the directory that record printed") from None
    return found


@contextmanager
def _opened(trace: Path, folder: Path) -> Iterator[int]:
    """Open a folder; each step of its path below the trace is opened relative to the step before."""
    descriptor = os.open(trace, _FOLDER)
    try:
        reached = trace
        for name in folder.relative_to(trace).parts:
            reached /= name
            try:
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _refusal(descriptor, reached, error) from error
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _refusal(folder: int, path: Path, error: OSError) -> TraceError:
    """Return the error for an entry that could not be opened; it names the kind of file if that is the
    reason."""
    try:
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_ISREG(mode) != stat.S_ISDIR(mode) and not isinstance(error, NotADirectoryError):
        return TraceError(f"cannot read {path}: {error.strerror}")
    return _no_file_of_a_trace(path)


def _no_file_of_a_trace(path: Path) -> TraceError:
    return TraceError(
        f"{path} is a link, a pipe, a device or the like, and a trace has only files and folders of its own: "
        "restore it from a copy"
    )
