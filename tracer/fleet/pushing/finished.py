"""The finished traces below a directory.

A trace is finished when its recorder has ended it and its journals are Parquet. A trace whose recorder was
killed never gets there; it counts as finished when nobody has written to it for `SETTLED_S`. A directory
whose name begins with a dot is left out: in a spool of `watch`, it is a trace that is being started or
removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tracer.directory import Directory
from tracer.errors import TraceError, TracerError
from tracer.trace import layout
from tracer.trace.meta import MOST_BYTES, is_meta, trace_id

SETTLED_S: Final = 60.0
"""The time without a change after which an interrupted trace counts as finished."""

_WHOLE: Final = re.compile(r"[a-z_]+\.parquet")
_TABLE: Final = re.compile(r"[a-z_]+")
_MOST_DEPTH: Final = 16
_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class FinishedTrace:
    """A trace that can be copied. `name` is its path below the spool. `files` are all its files except
    meta.json: path in the trace -> bytes. `fingerprint` changes with any file."""

    path: Path
    name: tuple[str, ...]
    identity: str
    meta: bytes
    files: dict[str, int]
    fingerprint: tuple[tuple[str, int, int, int], ...]

    @property
    def size_bytes(self) -> int:
        """Return the length of all files."""
        return len(self.meta) + sum(self.files.values())

    def is_unchanged(self) -> bool:
        """Return whether the trace still exists with the same files."""
        try:
            return _fingerprint(self.path) == self.fingerprint
        except (OSError, TraceError):
            return False

    def chunks(self, file: str) -> Iterator[bytes]:
        """Yield the content of a file; raises OSError and TraceError."""
        with layout.open_file(self.path, self.path / file) as stream:
            while chunk := stream.read(_BUFFER_BYTES):
                yield chunk


@dataclass(frozen=True)
class UnfinishedTrace:
    """A trace that is left for later, and why."""

    path: Path
    why: str


def trace_paths(spool: Path, warn: Callable[[str], None]) -> list[tuple[Path, tuple[str, ...]]]:
    """Return the traces below a directory, sorted, each with its path below it. If the directory is a trace,
    its path is its own name.

    Links below the directory are not followed. `warn` gets a line for each folder that cannot be read. Raises
    TracerError if there is no such directory.
    """
    try:
        entries = os.listdir(spool)  # noqa: PTH208  the order of names is that of text, not of paths
    except OSError as error:
        raise TracerError(f"cannot read {spool}: {error.strerror}: name a directory with traces") from error
    if layout.META in entries:
        return [(spool, (Path(os.path.realpath(spool)).name,))]
    return list(_below(spool, (), warn))


def _below(
    folder: Path, name: tuple[str, ...], warn: Callable[[str], None]
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    try:
        with os.scandir(folder) as entries:
            folders = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:  # removed meanwhile
        return
    except OSError as error:
        warn(f"cannot read {folder}: {error.strerror}")
        return
    for entry in folders:
        path = folder / entry
        if os.path.lexists(path / layout.META):
            yield path, (*name, entry)
        elif len(name) < _MOST_DEPTH:
            yield from _below(path, (*name, entry), warn)


def examine(path: Path, name: tuple[str, ...]) -> FinishedTrace | UnfinishedTrace:
    """Return the trace, or why it is left for later.

    Raises TraceError if it is damaged, or has files that no trace has, and OSError if it cannot be read.
    """
    if _is_locked(path):
        return UnfinishedTrace(path, "it is being written")
    fingerprint = _fingerprint(path)
    with layout.open_file(path, path / layout.META) as stream:
        meta = stream.read(MOST_BYTES + 1)
    identity = identity_of(meta)
    if identity is None:
        raise TraceError(f"{path / layout.META} is not that of a trace: restore it from a copy")
    found: dict[str, Any] = json.loads(meta)
    files = {file: size for file, size, *_ in fingerprint if file != layout.META}
    if found.get("ended") is None or any(file.startswith(f"{layout.JOURNAL}/") for file in files):
        age_s = time.time() - max(changed_ns for _, _, changed_ns, _ in fingerprint) / 1e9
        if abs(age_s) < SETTLED_S:
            return UnfinishedTrace(path, "it is not complete yet, and was written to a moment ago")
    return FinishedTrace(path, name, identity, meta, files, fingerprint)


def identity_of(meta: bytes) -> str | None:
    """Return the id of the trace with this meta.json; None: it is not the meta.json of a trace."""
    if len(meta) > MOST_BYTES or not is_meta(meta):
        return None
    try:
        return trace_id(json.loads(meta))
    except (KeyError, TypeError):
        return None


def _is_locked(path: Path) -> bool:
    """Return whether the trace is locked by a recorder, or by a process that completes it."""
    with Directory.open(path) as trace:
        try:
            fcntl.flock(trace.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a filesystem without such locks
            return False
        fcntl.flock(trace.fileno(), fcntl.LOCK_UN)
        return False


def _fingerprint(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return (path in the trace, bytes, time of change in ns, inode number) of each file of a trace."""
    found = []
    with Directory.open(path) as trace:
        for name in trace.names():
            if name == layout.META or _WHOLE.fullmatch(name):
                found.append((name, *_status(trace, name)))
            elif _TABLE.fullmatch(name):
                pattern = layout.NUMBERED_JOURNAL if name == layout.JOURNAL else layout.PART
                with suppress(FileNotFoundError), trace.subfolder(name) as folder:
                    found += [
                        (f"{name}/{part}", *_status(folder, part))
                        for part in folder.names()
                        if pattern.fullmatch(part)
                    ]
    if not any(name == layout.META for name, *_ in found):
        raise FileNotFoundError(2, os.strerror(2), str(path / layout.META))
    return tuple(found)


def _status(folder: Directory, name: str) -> tuple[int, int, int]:
    status = os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise TraceError(f"{folder.path / name} is not a regular file, and a trace has no other: remove it")
    return status.st_size, status.st_mtime_ns, status.st_ino
