"""The directory of a new trace: created, or cleared of an old trace, and locked while it is written.

The lock (flock(2) on the directory) ends with the recorder's process. Filesystems that cannot lock a
directory, such as NFS, have no lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.meta import is_meta
from tracer.trace.meta_check import MOST_BYTES

_FILES: Final = frozenset(
    {layout.META, layout.META_TEMPORARY, *(layout.whole_name(table) for table in TABLES)}
)
_FOLDERS: Final = {layout.JOURNAL: layout.JOURNAL_FILE, **dict.fromkeys(TABLES, layout.PART)}
"""The folders of a trace -> the names of the files in them."""


def claim(path: Path, *, force: bool) -> Directory:
    """Return `path` as an empty directory of mode 0700 that is locked until it is closed.

    With `force`, an old trace is removed from it, unless it has an entry that no trace has. Raises TraceError
    if the place is taken, belongs to another user, or is being written by another recorder, and OSError if
    the directory cannot be created.
    """
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # created by another recorder meanwhile: the lock decides
            path.mkdir(mode=0o700)
    trace = _open(path)
    try:
        _require_own(trace)
        _lock(trace)
        os.fchmod(trace.fileno(), 0o700)
        if names := trace.names():
            if not force:
                instead = ", or overwrite it with -f" if _is_trace(trace) else ""
                raise TraceError(f"{path} exists and is not empty: choose another place{instead}")
            _discard(trace, names)
    except BaseException:
        trace.close()
        raise
    return trace


def _open(path: Path) -> Directory:
    try:
        return Directory.open(path)
    except NotADirectoryError:
        if path.is_symlink():
            raise TraceError(
                f"{path} is a symbolic link, and a recording follows none: name the directory itself"
            ) from None
        raise TraceError(f"{path} exists and is not a trace: choose another place") from None


def _require_own(trace: Directory) -> None:
    """Refuse a directory of another user, who could exchange its files at any time."""
    if trace.owner != os.geteuid():
        raise TraceError(
            f"{trace.path} belongs to user {trace.owner}, who could replace what is written there: "
            "choose another place"
        )


def _lock(trace: Directory) -> None:
    try:
        fcntl.flock(trace.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _holder(trace)
        who = "another recorder" if pid is None else f"the recorder with pid {pid}"
        raise TraceError(
            f"{trace.path} is being written by {who}: stop that one first, or choose another place"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _holder(trace: Directory) -> int | None:
    """Return the pid of the holder of the directory's lock from /proc/locks (locks_show, fs/locks.c), if
    any."""
    status = os.fstat(trace.fileno())
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, locked, *_ = line.split()
            if kind == "FLOCK" and locked == inode and int(pid) > 0:  # 0: in another pid namespace
                return int(pid)
    return None


def _discard(trace: Directory, names: list[str]) -> None:
    """Remove an old trace, meta.json last: without it the directory is not a trace."""
    if not _is_trace(trace):
        raise TraceError(f"{trace.path} is not a trace and will not be overwritten: choose another place")
    for odd in _foreign(trace, names):
        raise TraceError(
            f"{trace.path} holds {odd!r}, which is no part of a trace: move it away, then use -f"
        )
    for name in sorted(names, key=lambda name: name == layout.META):
        if name in _FILES:
            trace.unlink(name)
            continue
        with trace.subfolder(name) as folder:
            for file in folder.names():
                folder.unlink(file)
        trace.rmdir(name)


def _is_trace(trace: Directory) -> bool:
    try:
        with trace.read(layout.META) as file:
            return is_meta(file.read(MOST_BYTES))
    except OSError:
        return False


def _foreign(trace: Directory, names: list[str]) -> Iterator[str]:
    """Yield the entries that no recorder writes, by name or by kind of file."""
    for name in names:
        mode = trace.mode(name)
        if name in _FILES and stat.S_ISREG(mode):
            continue
        if name in _FOLDERS and stat.S_ISDIR(mode):
            with trace.subfolder(name) as folder:
                yield from (f"{name}/{file}" for file in _not_ours(folder, _FOLDERS[name]))
            continue
        yield name


def _not_ours(folder: Directory, ours: re.Pattern[str]) -> Iterator[str]:
    for file in folder.names():
        if not (ours.fullmatch(file) and stat.S_ISREG(folder.mode(file))):
            yield file
