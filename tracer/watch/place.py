"""The directory of `watch`: traces whose names sort by time, bounded in number and size.

    20261127T004310Z-kill-web                 a trace: UTC time, reason, subject
    .unfinished-20261127T004310Z-kill-web     a trace that has begun, or that is being removed

A trace gets its name when its files are on disk, so a reader never sees a partial trace. While a story goes
on, and until its journals are completed, a published trace has a folder of journals. The lock on the
directory (`tracer.trace.write.claim.lock`) refuses a second `watch`.

Other entries of the directory are not counted and never removed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tracer.directory import Directory, require_own_links
from tracer.errors import TraceError
from tracer.trace import layout
from tracer.trace.write import claim

MOST_SUBJECT: Final = 60
"""The most characters of the subject in the name of a trace."""

_TIME: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(rf"(\d{{8}}T\d{{6}}Z)-([a-z0-9_]+)-([A-Za-z0-9_.-]{{1,{MOST_SUBJECT + 8}}})")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_SETTLED_NS: Final = 2_000_000_000  # the time of a change is coarse: a later change may have the same time


@dataclass(frozen=True)
class TraceName:
    """The parts of a trace's name: `time_ns` is CLOCK_REALTIME at the start of its second."""

    time_ns: int
    reason: str
    subject: str


def name_of(time_ns: int, reason: str, subject: str) -> str:
    """Return the name of a trace; `time_ns` is CLOCK_REALTIME, `subject` is any text, such as a name."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    plain = _NOT_IN_A_NAME.sub("_", subject)[:MOST_SUBJECT].strip("_") or "unknown"
    return f"{moment.strftime(_TIME)}-{reason}-{plain}"


def parse_name(name: str) -> TraceName | None:
    """Return the parts of a name of `name_of`, maybe numbered as a repetition; None for any other name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        moment = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return TraceName(int(moment.timestamp()) * 1_000_000_000, found[2], found[3])


class Place:
    """The directory, made (0700) if it is absent, and locked until `close`.

    `keep_traces` and `max_disk_bytes` bound the traces in it; None: no bound. `warn` is called with a line if
    a trace cannot be removed, or if the directory was replaced.

    Raises TraceError if the directory is a symbolic link, belongs to another user, is writable by others, is
    in use by another `watch`, or cannot be made. Methods raise OSError: on a full disk, the caller tries
    again.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_traces: int | None,
        max_disk_bytes: int | None,
        warn: Callable[[str], None],
    ) -> None:
        self.path = directory.absolute()
        self._keep_traces = keep_traces
        self._max_disk_bytes = max_disk_bytes
        self._warn = warn
        self._kept: set[str] = set()  # traces that could not be removed; `warn` was called
        self._inodes: dict[str, int] = {}  # name that `name_of` may have returned -> inode number
        self._listed_ns = -1  # the time of the change after which the directory was listed
        self._sizes: dict[str, tuple[int, int | None]] = {}  # name -> inode number, bytes; None: not a trace
        self._directory = self._open()

    def close(self) -> None:
        """Release the directory for another `watch`."""
        self._directory.close()

    def sweep(self) -> list[Path]:
        """Remove the unpublished traces of a killed `watch`; return the published traces that still have
        journals, the oldest first.

        Call it at the start. It reads the sizes of all traces, so that `retain` need not.
        """
        for name in self._directory.names():
            if name.startswith(claim.UNFINISHED):
                self._try_to_remove(name)
        left = [name for name in self._trace_names() if self._size_of(name) is not None]
        return [self.path / name for name in left if self._has_journals(name)]

    def begin(self, name: str) -> Path:
        """Make and return an empty directory for a new trace, to which `publish` gives its `name`.

        The directory of traces is renewed first. Raises OSError, and TraceError as the constructor does.
        """
        self.renew()
        for unique in _numbered(claim.UNFINISHED + name):
            with suppress(FileExistsError):
                os.mkdir(unique, 0o700, dir_fd=self._directory.fileno())
                return self.path / unique
        raise AssertionError

    def discard(self, unfinished: Path) -> None:
        """Remove a directory from `begin` that will not be published."""
        claim.remove(self._directory, unfinished.name)

    def publish(self, unfinished: Path) -> Path:
        """Write all files of a trace from `begin` to disk, then give the trace its name; return its new path.

        A writer of the trace must hold it by its descriptor. Raises FileNotFoundError if the trace was
        removed, and OSError if its files cannot be written; it stays unfinished then.
        """
        with self._directory.subfolder(unfinished.name) as trace:
            trace.sync_all()
        return self.rename(unfinished, unfinished.name.removeprefix(claim.UNFINISHED))

    def rename(self, trace: Path, name: str) -> Path:
        """Give a trace another name, with a number if the name is taken; return its path. Raises OSError."""
        for unique in _numbered(name):
            if self._exists(unique):
                continue
            try:
                self._directory.replace(trace.name, unique)
            except OSError as error:
                if error.errno in _TAKEN:
                    continue
                raise
            self._directory.sync()
            return self.path / unique
        raise AssertionError

    def retain(self, in_use: Collection[Path]) -> list[Path]:
        """Remove the oldest traces while there are too many or they are too large; return their paths.

        `in_use`: traces that are being written, and the one that is being completed. They are counted, but
        neither they nor the newest trace are removed. If the directory has not changed, only the sizes of
        traces in use are read.
        """
        busy = {path.name for path in in_use}
        sizes = {
            name: size for name in self._trace_names() if (size := self._size_of(name, busy)) is not None
        }
        count, total_bytes = len(sizes), sum(sizes.values())
        removed = []
        for name in list(sizes)[:-1]:
            is_too_many = self._keep_traces is not None and count > self._keep_traces
            is_too_long = self._max_disk_bytes is not None and total_bytes > self._max_disk_bytes
            if not (is_too_many or is_too_long):
                break
            if name in busy:
                continue
            hidden = next(one for one in _numbered(claim.UNFINISHED + name) if not self._exists(one))
            if self._try_to_remove(name, hidden):
                removed.append(self.path / name)
            count, total_bytes = count - 1, total_bytes - sizes[name]
        return removed

    def renew(self) -> bool:
        """Make and lock the directory again if it was removed or replaced; return whether it was.

        Raises TraceError as the constructor does.
        """
        if self._is_in_place():
            return False
        fresh = self._open()
        self._directory.close()
        self._directory = fresh
        self._kept.clear()
        self._listed_ns = -1
        self._warn(f"{self.path} was removed or replaced: traces go to a new directory there")
        return True

    # The directory

    def _open(self) -> Directory:
        try:
            _make(self.path)
            directory = claim.open_own(self.path, "directory")
        except OSError as error:
            raise TraceError(f"cannot use {self.path} ({error.strerror}): choose another place") from error
        try:
            if not directory.is_writable_by_us_alone():
                raise TraceError(
                    f"other users can write to {self.path}, and could replace traces there: take their "
                    f"permission away (chmod go-w), or choose another place"
                )
            claim.lock(directory, "watch")
        except BaseException:
            directory.close()
            raise
        return directory

    def _is_in_place(self) -> bool:
        try:
            there = self.path.lstat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._directory.fileno()))

    # The traces

    def _trace_names(self) -> list[str]:
        """Return the names that `name_of` may have returned, the oldest first, listed after a change."""
        changed_ns = os.fstat(self._directory.fileno()).st_mtime_ns
        if changed_ns != self._listed_ns:
            found = {}
            with suppress(FileNotFoundError), os.scandir(self._directory.fileno()) as entries:
                for entry in entries:
                    if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                        found[entry.name] = entry.inode()
            self._inodes = dict(sorted(found.items()))
            self._sizes = {name: size for name, size in self._sizes.items() if name in found}
            is_settled = abs(time.time_ns() - changed_ns) > _SETTLED_NS
            self._listed_ns = changed_ns if is_settled else -1
        return list(self._inodes)

    def _size_of(self, name: str, busy: Collection[str] = ()) -> int | None:
        """Return the total size of a trace's files in bytes, or None if it holds other files than ours."""
        if name in busy:
            self._sizes.pop(name, None)
            return layout.size_bytes(self.path / name)
        inode, size = self._sizes.get(name, (-1, None))
        if inode != self._inodes[name]:
            size = None
            with suppress(OSError, TraceError):
                size = claim.old_trace_bytes(self._directory, name)
            self._sizes[name] = self._inodes[name], size
        return None if name in self._kept else size

    def _has_journals(self, name: str) -> bool:
        with suppress(OSError), self._directory.subfolder(name) as trace:
            return stat.S_ISDIR(trace.mode(layout.JOURNAL))
        return False

    def _exists(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            self._directory.mode(name)
            return True
        return False

    def _try_to_remove(self, name: str, hidden: str | None = None) -> bool:
        """Remove a trace (`claim.remove`). On failure, warn, and do not try again."""
        try:
            claim.remove(self._directory, name, hidden)
        except TraceError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{self.path / name}: {error.strerror or error}"
        else:
            return True
        self._kept.add(name)
        self._warn(f"an old trace is not removed, and not counted any more: {reason}")
        return False


def _make(directory: Path) -> None:
    """Make a directory (0700) and its parents (0755, whatever the umask), unless they exist."""
    require_own_links(directory.parent)
    for parent in reversed(directory.parents):
        with suppress(FileExistsError):
            if not parent.exists():
                parent.mkdir(0o755)
    with suppress(FileExistsError):
        directory.mkdir(0o700)


def _numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name-2`, `name-3` and so on."""
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}-{number}"
