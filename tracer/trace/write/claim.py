"""The directory of a new trace: created, or cleared of an old trace, and locked while it is written.

The lock (flock(2) on the directory) ends with the recorder's process. Filesystems that cannot lock a
directory, such as NFS, have no lock. A directory that is not a trace, or holds anything that no recorder
writes, is never removed.
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

from tracer.directory import Directory, require_own_links
from tracer.errors import TraceError
from tracer.kernel.cgroups.mounts import device_of
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.meta import MOST_BYTES, is_meta

_FILES: Final = frozenset(
    {layout.META, layout.META_TEMPORARY, *(layout.whole_name(table) for table in TABLES)}
)
UNFINISHED: Final = ".unfinished-"
"""The prefix of the name of a trace in a spool while the trace is begun or removed. The next `watch` there
removes it."""

_FOLDERS: Final = {layout.JOURNAL: layout.JOURNAL_FILE, **dict.fromkeys(TABLES, layout.PART)}
"""The folders of a trace -> the names of the files in them."""


def claim(path: Path, *, force: bool) -> Directory:
    """Return `path` as an empty directory of mode 0700, which is locked until it is closed.

    With `force`, an old trace is removed from it, unless it has an entry that no trace has. Raises TraceError
    if the place is taken, belongs to another user, or is being written by another recorder, and OSError if
    the directory cannot be created.
    """
    require_own_links(path.parent)
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another recorder created it meanwhile: the lock decides
            path.mkdir(mode=0o700)
    trace = open_own(path)
    try:
        lock(trace)
        os.fchmod(trace.fileno(), 0o700)
        if names := trace.names():
            if not force:
                instead = ", or overwrite it with -f" if _is_trace(trace) else ""
                raise TraceError(f"{path} exists and is not empty: choose another place{instead}")
            _require_old_trace(trace, names, ", then use -f")
            _discard(trace, names)
    except BaseException:
        trace.close()
        raise
    return trace


def open_own(path: Path, what: str = "trace") -> Directory:
    """Open a directory of our own; `what` is its kind, for the message.

    Raises TraceError if it is a symbolic link, or belongs to another user, who could exchange its files at
    any time, and OSError if it cannot be opened.
    """
    require_own_links(path.parent)
    try:
        directory = Directory.open(path)
    except NotADirectoryError:
        if path.is_symlink():
            raise TraceError(
                f"{path} is a symbolic link, and a recording follows none: name the directory itself"
            ) from None
        raise TraceError(f"{path} exists and is not a {what}: choose another place") from None
    owner = directory.owner
    if owner != os.geteuid():
        directory.close()
        raise TraceError(
            f"{path} belongs to user {owner}, who could replace what is written there: choose another place"
        )
    return directory


def lock(directory: Directory, holder: str = "recorder") -> None:
    """Lock a directory until it is closed; `holder` is the kind of process that locks such a directory.

    Raises TraceError if a process has locked it. A filesystem without such locks is accepted.
    """
    try:
        fcntl.flock(directory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _holder(directory)
        who = f"another {holder}" if pid is None else f"the {holder} with pid {pid}"
        raise TraceError(
            f"{directory.path} is being written by {who}: stop that one first, or choose another place"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def old_trace_bytes(parent: Directory, name: str) -> int:
    """Return the sum of the lengths of the files of an old trace in `parent`.

    Raises TraceError if it is not a trace or has an entry that no trace has, and OSError if it cannot be
    read.
    """
    with parent.subfolder(name) as trace:
        _require_old_trace(trace, trace.names())
        return layout.size_bytes(trace.path)


def remove(parent: Directory, name: str, hidden: str | None = None) -> None:
    """Remove an old trace in `parent`, which is first renamed to `hidden`, so that nobody sees a part of it.

    Without `hidden`, remove the remains of a trace that a killed recorder had begun, maybe without a
    meta.json. Raises TraceError, and changes nothing, if the trace is being written, is not a trace or has an
    entry that no trace has; OSError if it cannot be removed.
    """
    with parent.subfolder(name) as trace:
        lock(trace)
        names = trace.names()
        if hidden is None:
            _require_files_of_traces(trace, names)
        else:
            _require_old_trace(trace, names)
            parent.replace(name, hidden)
        _discard(trace, names)
        parent.rmdir(hidden or name)


def _holder(trace: Directory) -> int | None:
    """Return the pid that holds the directory's lock, by /proc/locks (proc_locks(5)); None: not known."""
    with suppress(OSError):
        major, minor = device_of(trace.fileno())
        inode = f"{major:02x}:{minor:02x}:{os.fstat(trace.fileno()).st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, locked, *_ = line.split()
            if kind == "FLOCK" and locked == inode and int(pid) > 0:  # 0: in another pid namespace
                return int(pid)
    return None


def _require_old_trace(trace: Directory, names: list[str], then: str = "") -> None:
    if not _is_trace(trace):
        raise TraceError(f"{trace.path} is not a trace and will not be overwritten: choose another place")
    _require_files_of_traces(trace, names, then)


def _require_files_of_traces(trace: Directory, names: list[str], then: str = "") -> None:
    for odd in _foreign(trace, names):
        raise TraceError(f"{trace.path} holds {odd!r}, which is no part of a trace: move it away{then}")


def _discard(trace: Directory, names: list[str]) -> None:
    """Remove the files of a trace, meta.json last: without it the directory is not a trace."""
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
