"""Files of a target that is a directory of this machine: below it, no symbolic link is followed.

Otherwise, anyone who can write there could make root write, read or remove a file of the same name elsewhere.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from tracer.directory import Directory, require_own_links


def put(root: Path, path: str, temporary: str, chunks: Iterable[bytes]) -> None:
    """Write a whole file (0600) to disk, in folders (0700) that are made if they are absent.

    The file has the name `temporary` until it is complete. Raises OSError.
    """
    require_own_links(root)
    root.mkdir(parents=True, exist_ok=True)
    folder, _, name = path.rpartition("/")
    with _opened(root, folder, make=True) as directory:
        directory.write_whole(name, chunks, temporary=temporary, sync=True)


@contextmanager
def reading(root: Path, path: str) -> Iterator[IO[bytes]]:
    """Open a regular file. Raises OSError."""
    folder, _, name = path.rpartition("/")
    with _opened(root, folder) as directory, directory.read(name) as file:
        yield file


def remove(root: Path, path: str) -> None:
    """Remove a file; it may be gone already. Raises OSError."""
    folder, _, name = path.rpartition("/")
    with suppress(FileNotFoundError), _opened(root, folder) as directory:
        directory.unlink(name)


@contextmanager
def _opened(root: Path, folder: str, *, make: bool = False) -> Iterator[Directory]:
    """Open the directory at a path below the root."""
    with ExitStack() as stack:
        directory = stack.enter_context(Directory.open(root.resolve()))
        for part in filter(None, folder.split("/")):
            try:
                directory = stack.enter_context(directory.subfolder(part, make=make))
            except NotADirectoryError:
                why = f"{directory.path / part} is a symbolic link or a file, and no directory"
                raise NotADirectoryError(errno.ENOTDIR, why) from None
        yield directory
