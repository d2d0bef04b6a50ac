"""The files of the host, read within bounds.

In a pod, the host's files are not at their usual paths. They are below the *host root*: the directory in
`MEMCG_TRACER_HOST_ROOT`; else the root of process 1, if it may be entered and is not our own root (a pod with
`hostPID` and CAP_SYS_PTRACE); else `/`.

The host's administrator names the folders, which may be symbolic links: such links are followed within the
host root. Below a folder, links are refused, and so is every file that is not regular.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from tracer.directory import Directory

HOST_ROOT_VARIABLE: Final = "MEMCG_TRACER_HOST_ROOT"

MOST_FILE_BYTES: Final = 2 << 20
"""The most bytes of a file about one container. The file has the container's environment, which can make it
large."""

MOST_LIST_BYTES: Final = 8 << 20
"""The most bytes of a list of containers: a list of 10,000 has 5 MiB. Parsing takes up to 0.15 s, during
which no other thread runs."""

MOST_ENTRIES: Final = 100_000
"""The most entries of a folder that are read."""

LONGEST_NAME: Final = 1024
"""The most characters of a name: a name in Kubernetes has at most 253, and a reference to an image about
500."""

_MOST_LINKS: Final = 40  # MAXSYMLINKS, include/linux/namei.h
_ROOT_OF_INIT: Final = Path("/proc/1/root")


class HostFiles:
    """Reads files of the host by their paths there; an absent or damaged file is no error."""

    def __init__(self, root: Path | None = None, *, is_for_once: bool = False) -> None:
        """Take the host root. `is_for_once`: a folder that is absent at its first use stays so, which saves
        looking for it again for each of many names."""
        self.root = root if root is not None else host_root()
        self._absent: set[str] | None = set() if is_for_once else None

    def place(self, path: str) -> Path:
        """Return the path at which this process reaches a path of the host, with symbolic links resolved as
        on the host. The path need not exist. Raises OSError for a loop of links."""
        root = str(self.root).rstrip("/")
        reached, links = root, 0
        ahead = deque(part for part in path.split("/") if part not in ("", "."))
        while ahead:
            part = ahead.popleft()
            if part == "..":
                reached = os.path.dirname(reached) if reached != root else root  # noqa: PTH120  it is a text
                continue
            try:
                target = os.readlink(f"{reached}/{part}")  # noqa: PTH115
            except OSError:  # no link
                reached = f"{reached}/{part}"
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            reached = root if target.startswith("/") else reached
            ahead.extendleft(reversed([part for part in target.split("/") if part not in ("", ".")]))
        return Path(reached or "/")

    def _present(self, folder: str) -> Path:
        """Return `place` of a folder. Raises FileNotFoundError if the folder was absent before."""
        if self._absent is None:
            return self.place(folder)
        if folder in self._absent:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        path = self.place(folder)
        if not path.exists():
            self._absent.add(folder)
        return path

    def read(self, folder: str, *below: str, most_bytes: int = MOST_FILE_BYTES) -> bytes | None:
        """Return the content of a file `below` a folder; None if it cannot be read, or is too long."""
        with suppress(OSError, ValueError), ExitStack() as stack:
            directory = stack.enter_context(Directory.open(self._present(folder)))
            for name in below[:-1]:
                directory = stack.enter_context(directory.subfolder(name))
            file = stack.enter_context(directory.read(below[-1]))
            content = file.read(most_bytes + 1)
            return content if len(content) <= most_bytes else None
        return None

    def read_json(self, folder: str, *below: str, most_bytes: int = MOST_FILE_BYTES) -> Any:
        """Return the JSON document in a file, as `read` does; None if the file has no such document."""
        return parse_json(self.read(folder, *below, most_bytes=most_bytes))

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of the first `MOST_ENTRIES` entries of a folder, in any order."""
        with suppress(OSError), os.scandir(self._present(folder)) as entries:
            for entry in itertools.islice(entries, MOST_ENTRIES):
                yield entry.name


def host_root() -> Path:
    """Return the directory that has the host's files; `/` if they are at their usual paths or nowhere."""
    if named := os.environ.get(HOST_ROOT_VARIABLE):
        return Path(named)
    try:
        is_another = not _ROOT_OF_INIT.samefile("/")
    except OSError:  # we may not enter it
        return Path("/")
    return _ROOT_OF_INIT if is_another else Path("/")


def parse_json(content: object) -> Any:
    """Return the JSON document in a text or in bytes; None without one, or if it is nested too deeply."""
    try:
        return json.loads(content) if isinstance(content, str | bytes) else None
    except (ValueError, RecursionError):
        return None


def get(document: object, *keys: str) -> Any:
    """Return the value at the end of these keys of nested objects; None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text(document: object, *keys: str) -> str | None:
    """Return the text at the end of these keys, as `as_name` does."""
    return as_name(get(document, *keys))


def as_name(value: object) -> str | None:
    """Return a text; None for anything else, and for an empty or overlong one."""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_NAME else None
