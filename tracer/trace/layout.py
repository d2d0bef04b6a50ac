"""The files of a trace, and the choice of the files that hold the rows of a table.

    meta.json                       the circumstances of the recording, and how it ended
    <table>.parquet                 the whole table, or
    <table>/000001.parquet ...      its parts, in the order in which they were recorded
    journal/<table>.<n>.arrows      part n until it is turned into Parquet

A part becomes Parquet by a rename, and its journal is removed after that. So a reader that prefers the
Parquet file of a part sees each row exactly once, whenever the recorder was killed. `<table>.parquet` is
written only when it has all rows of the table.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from tracer.trace import untrusted_files

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
    """Return the name of a part in the table's folder."""
    return f"{number:06}.parquet"


def journal_name(table: str, number: int) -> str:
    """Return the name of a journal in the folder of journals."""
    return f"{table}.{number}.arrows"


def journal_temporary(table: str, target: str) -> str:
    """Return the name, in the folder of journals, of the Parquet file `target` while it is written."""
    return f"{table}.{target.removesuffix('.parquet')}.tmp"


def whole_path(trace: Path, table: str) -> Path:
    """Return the path of the Parquet file of a whole table."""
    return trace / whole_name(table)


def parts(trace: Path, table: str) -> list[Path]:
    """Return the files that hold the table's rows, oldest first; each row is in one of them.

    Journals are listed before Parquet files: while a recorder is at work, a part may be in both lists, but it
    is always in one of them.
    """
    numbered = _numbered(trace, trace / JOURNAL, re.compile(rf"{table}\.(\d{{1,9}})\.arrows"))
    numbered |= _numbered(trace, trace / table, PART)
    whole = whole_path(trace, table)
    if whole.name in untrusted_files.names(trace, trace):
        return [whole]
    return [numbered[number] for number in sorted(numbered)]


def _numbered(trace: Path, place: Path, name: re.Pattern[str]) -> dict[int, Path]:
    found = ((name.fullmatch(entry), entry) for entry in untrusted_files.names(trace, place))
    return {int(match[1]): place / entry for match, entry in found if match}


def size_bytes(trace: Path) -> int:
    """Return the sum of the lengths of a trace's files; a file that is removed meanwhile counts as 0."""
    total = 0
    for place, _, names in os.walk(trace):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total
