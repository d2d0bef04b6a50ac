"""The files of a trace, and the choice of the files that hold the rows of a table.

    meta.json                       the circumstances of the recording, and how it ended
    <table>.parquet                 the whole table, or
    <table>/000001.parquet ...      its parts, in the order in which they were recorded
    journal/<table>.<n>.arrows      part n until it is turned into Parquet

A part becomes Parquet by a rename, and its journal is removed after that. So a reader that prefers the
Parquet file of a part sees each row exactly once, whenever the recorder was killed. `<table>.parquet` is
written only when it has all rows of the table.

The files may come from anyone: only regular files below the trace's directory are opened. The path of the
trace may be a symbolic link. Below the trace, every link is refused, and so is every file that is not
regular: a read from a FIFO would block, and a read from a device would not end.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Final

from tracer.directory import Directory
from tracer.errors import TraceError

MOST_ENTRIES: Final = 100_000
"""The most entries of a folder in a trace. A part has a million rows, so no recording has as many."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OF_ANOTHER_KIND: Final = (None, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV)
"""The errors at an entry that is neither a file nor a folder, where one is expected."""


def open_file(trace: Path, path: Path) -> IO[bytes]:
    """Open the file `path` below the directory `trace` for reading.

    Raises FileNotFoundError if there is no such file, NotADirectoryError if `trace` is a file, and TraceError
    if `path` is not a regular file or cannot be opened.
    """
    try:
        with _opened(trace, path.parent) as folder, _refused_at(path):
            return folder.read(path.name)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None


def file_names(trace: Path, folder: Path) -> list[str]:
    """Return the names in a folder below the directory `trace`, or in `trace`, in any order; [] if there is
    no such folder.

    Raises TraceError if the folder is not a directory, or holds too many names.
    """
    try:
        with _opened(trace, folder) as opened, os.scandir(opened.fileno()) as entries:
            found = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise TraceError(f"{folder} is not a directory: name the directory that record printed") from None
    if len(found) > MOST_ENTRIES:
        raise TraceError(f"{folder} holds more than {MOST_ENTRIES:,} files: no trace is like that")
    return found


@contextmanager
def _opened(trace: Path, folder: Path) -> Iterator[Directory]:
    """Open a folder; each step of its path below the trace is opened relative to the step before."""
    with ExitStack() as stack:
        opened = stack.enter_context(Directory(os.open(trace, _FOLDER), trace))
        for name in folder.relative_to(trace).parts:
            with _refused_at(opened.path / name):
                opened = stack.enter_context(opened.subfolder(name))
        yield opened


@contextmanager
def _refused_at(path: Path) -> Iterator[None]:
    """Raise TraceError if an entry cannot be opened, but FileNotFoundError if there is no such entry."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in _OF_ANOTHER_KIND:
            raise TraceError(f"cannot read {path}: {error.strerror}") from error
        raise TraceError(
            f"{path} is a link, a pipe, a device or the like, and a trace has only files and folders of its "
            "own: restore it from a copy"
        ) from error


META: Final = "meta.json"
META_TEMPORARY: Final = "meta.json.tmp"
"""The name of meta.json while it is written."""
JOURNAL: Final = "journal"

PART: Final = re.compile(r"(\d{6,9})\.parquet")
JOURNAL_FILE: Final = re.compile(r"[a-z_]+\.\w+\.(arrows|tmp)")
"""The name of a journal, or of the Parquet file to which a journal is being turned."""
NUMBERED_JOURNAL: Final = re.compile(r"([a-z_]+)\.(\d{1,9})\.arrows")
"""The name of a journal: table and number."""
FILE: Final = re.compile(r"[a-z_]+\.parquet|[a-z_]+/\d{6,9}\.parquet|journal/[a-z_.0-9]+")
"""The path, in the trace, of any file that a trace can have except meta.json."""


def whole_name(table: str) -> str:
    """Return the name of the Parquet file of a whole table."""
    return f"{table}.parquet"


def part_name(number: int) -> str:
    return f"{number:06}.parquet"


def journal_name(table: str, number: int) -> str:
    return f"{table}.{number}.arrows"


def journal_temporary(table: str, target: str) -> str:
    """Return the name, in the folder of journals, of the Parquet file `target` while it is written."""
    return f"{table}.{target.removesuffix('.parquet')}.tmp"


def whole_path(trace: Path, table: str) -> Path:
    return trace / whole_name(table)


def parts(trace: Path, table: str) -> list[Path]:
    """Return the files that hold the table's rows, oldest first; each row is in one of them.

    Journals are listed before Parquet files: while a recorder is at work, a part may be in both lists, but it
    is always in one of them.
    """
    numbered = _numbered(trace, trace / JOURNAL, re.compile(rf"{table}\.(\d{{1,9}})\.arrows"))
    numbered |= _numbered(trace, trace / table, PART)
    whole = whole_path(trace, table)
    if whole.name in file_names(trace, trace):
        return [whole]
    return [numbered[number] for number in sorted(numbered)]


def _numbered(trace: Path, place: Path, name: re.Pattern[str]) -> dict[int, Path]:
    found = ((name.fullmatch(entry), entry) for entry in file_names(trace, place))
    return {int(match[1]): place / entry for match, entry in found if match}


def size_bytes(trace: Path) -> int:
    """Return the sum of the lengths of a trace's files; a file that is removed meanwhile counts as 0."""
    total = 0
    for place, _, names in os.walk(trace):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total
