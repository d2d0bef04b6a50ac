"""Traces that are damaged at random: bytes, values, types, columns, rows, files, and links out of the
trace."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.schema import TABLES, UNLIMITED_BYTES
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter

RECORDED: Final = Path(__file__).parents[2] / "traces"
SOURCES: Final = ("page-cache", "thrash", "group-kill", "parent-limit")

INTEGERS: Final = (
    *(0, 1, -1, 2, 7, 41, 4096, 1 << 20, -(1 << 20), 1 << 31, (1 << 31) - 1, -(1 << 31), 1 << 40),
    *(UNLIMITED_BYTES, UNLIMITED_BYTES - 1, (1 << 63) - 1, -(1 << 63), 1 << 62, -(1 << 62)),
    *(1_764_000_000_000_000_000, 7_258_118_400_000_000_000, 7_258_118_399_999_999_999),
)
TEXTS: Final = (
    *("", "x", "/", "/a/b", "\x1b[31m", "\n", "\0", "\\xff", "é", "a" * 70_000, "a" * 200_000, "<b>&'\""),
    *("memcg", "global", "anon", "kernel", "%s", "{0}", "8:1", "../..", "\u202e", "\ud7ff", "[bold]"),
)
VALUES: Final[tuple[object, ...]] = (
    *(None, True, False, 1.5, float("nan"), float("inf"), -1, 0, 1 << 70, -(1 << 70), 1 << 40, 10**18),
    *("", "x", "\ud800", "1", "2025-01-01", "1677-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"),
    *([], {}, [None], [[]], {"x": None}, {"": {}}, [1, "a"], "a" * 100_000, {"total_bytes": "x"}),
)
TYPES: Final = (
    *(pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.bool_(), pa.string(), pa.binary()),
    *(pa.large_string(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", tz="UTC"), pa.date32()),
    *(pa.timestamp("s", tz="Asia/Tokyo"), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.string())),
    *(pa.list_(pa.int64()), pa.decimal128(30, 2), pa.null(), pa.struct([("a", pa.int64())])),
)


def recorded(folder: Path) -> list[Path]:
    """Return copies of recorded traces in `folder`, and of one as a killed recorder leaves it."""
    found = [Path(shutil.copytree(RECORDED / name, folder / name)) for name in SOURCES]
    trace = Trace(found[0])
    meta = json.loads((found[0] / "meta.json").read_text()) | {"ended": None, "rows": None, "lost": None}
    writer = TraceWriter(folder / "interrupted", meta, force=False)
    for table in TABLES:
        rows = trace.table(table)
        for first in range(0, rows.num_rows, 500):
            writer.append(table, rows.slice(first, 500))
    writer.flush()
    return [*found, Path(shutil.copytree(writer.path, folder / "journals"))]


def mutate(rng: random.Random, trace: Path) -> str:
    """Damage a trace in one to three ways, and return a description of the damage."""
    return "; ".join(rng.choice(MUTATIONS)(rng, trace) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _any_file(rng: random.Random, trace: Path, pattern: str = "*") -> Path | None:
    files = sorted(path for path in trace.rglob(pattern) if path.is_file() and not path.is_symlink())
    return rng.choice(files) if files else None


def _bytes(rng: random.Random, trace: Path) -> str:
    """Change bytes of a file."""
    path = _any_file(rng, trace)
    if path is None:
        return "nothing left"
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "cut", "insert", "zero", "empty", "twice"))
    for _ in range(rng.choice((1, 1, 4, 30))):
        at = rng.randrange(len(content) + 1)
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
        elif kind == "zero":
            size = rng.choice((1, 8, 64))
            content[at : at + size] = bytes(size)
        elif kind == "empty":
            content.clear()
    path.write_bytes(content * 2 if kind == "twice" else content)
    return f"{kind} {path.relative_to(trace)}"


def _meta_value(rng: random.Random, trace: Path) -> str:
    """Change or delete a value of meta.json."""
    path = trace / "meta.json"
    try:
        meta = json.loads(path.read_text())
        place, where = meta, rng.choice([*meta])
        while isinstance(place[where], dict | list) and place[where] and rng.random() < 0.6:
            place = place[where]
            where = rng.choice([*place]) if isinstance(place, dict) else rng.randrange(len(place))
    except (ValueError, OSError, TypeError, IndexError):
        return "meta.json is no more"
    if rng.random() < 0.1:
        del place[where]
        return f"meta.json without {where}"
    place[where] = rng.choice(VALUES)
    path.write_text(json.dumps(meta))
    return f"meta.json {where} = {str(place[where])[:30]!r}"


def _table(rng: random.Random, trace: Path) -> tuple[Path, pa.Table] | None:
    path = _any_file(rng, trace, "*.parquet") or _any_file(rng, trace, "*.arrows")
    if path is None:
        return None
    try:
        data = (
            pq.read_table(path)
            if path.suffix == ".parquet"
            else pa.ipc.open_stream(path.read_bytes()).read_all()
        )
    except (pa.ArrowException, OSError, ValueError):
        return None
    return path, data


def _store(path: Path, data: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(data, path)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, data.schema) as stream:
        stream.write_table(data.unify_dictionaries())


def _value(rng: random.Random, kind: pa.DataType) -> Any:
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return rng.choice(TEXTS)
    if pa.types.is_list(kind):
        return rng.choice([[], [""], [rng.choice(TEXTS)] * 3, ["f"] * 5000, [None]])
    if pa.types.is_boolean(kind):
        return rng.random() < 0.5
    return rng.choice(INTEGERS)


def _values(rng: random.Random, trace: Path) -> str:
    """Change values of one column to others of the right type, or to NULL."""
    found = _table(rng, trace)
    if found is None or not found[1].num_columns:
        return "no table"
    path, data = found
    at = rng.randrange(data.num_columns)
    field = data.schema.field(at)
    kind = field.type
    plain = pa.int64() if pa.types.is_timestamp(kind) else kind
    plain = plain.value_type if pa.types.is_dictionary(plain) else plain
    column = data.column(at).cast(plain).to_pylist()
    if not column:
        return "no rows"
    everywhere, null = rng.random() < 0.3, rng.random() < 0.2
    value = None if null else _value(rng, kind)
    picked = range(len(column)) if everywhere else rng.sample(range(len(column)), min(len(column), 3))
    for row in picked:
        column[row] = value if everywhere or null else _value(rng, kind)
    with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeEncodeError):
        array = pa.array(column, plain)
        array = array.cast(kind) if pa.types.is_timestamp(kind) else array
        array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array
        _store(path, data.set_column(at, field.name, array))
    return f"{path.name} {field.name} = {str(value)[:30]!r}{' everywhere' if everywhere else ''}"


def _column_type(rng: random.Random, trace: Path) -> str:
    """Change the type of a column."""
    found = _table(rng, trace)
    if found is None or not found[1].num_columns:
        return "no table"
    path, data = found
    at, kind = rng.randrange(data.num_columns), rng.choice(TYPES)
    name = data.schema.field(at).name
    try:
        column = data.column(at).cast(kind, safe=False)
    except (pa.ArrowException, ValueError):
        column = pa.nulls(data.num_rows, kind)
    with contextlib.suppress(pa.ArrowException):
        _store(path, data.set_column(at, name, column))
    return f"{path.name} {name} as {kind}"


def _columns(rng: random.Random, trace: Path) -> str:
    """Remove, repeat or rename a column, or give all rows the values of the first."""
    found = _table(rng, trace)
    if found is None or not found[1].num_columns:
        return "no table"
    path, data = found
    at = rng.randrange(data.num_columns)
    name = data.schema.field(at).name
    how = rng.choice(("without", "twice", "renamed", "all one value"))
    if how == "without":
        data = data.remove_column(at)
    elif how == "twice":
        data = data.append_column(name, data.column(at))
    elif how == "renamed":
        data = data.rename_columns([rng.choice(TEXTS[:8]) if n == name else n for n in data.schema.names])
    else:
        data = data.take(pa.array([0] * data.num_rows, pa.int64())) if data.num_rows else data
    with contextlib.suppress(pa.ArrowException):
        _store(path, data)
    return f"{path.name} {name} {how}"


def _rows(rng: random.Random, trace: Path) -> str:
    """Reorder, repeat or remove rows of a table."""
    found = _table(rng, trace)
    if found is None or not found[1].num_rows:
        return "no rows"
    path, data = found
    order = [*range(data.num_rows)]
    how = rng.choice(("shuffled", "twice", "cut", "none", "many"))
    if how == "shuffled":
        rng.shuffle(order)
    order = {"twice": order * 2, "cut": order[: len(order) // 2], "none": [], "many": order * 5}.get(
        how, order
    )
    _store(path, data.take(pa.array(order, pa.int64())))
    return f"{path.name} rows {how}"


def _files(rng: random.Random, trace: Path) -> str:
    """Exchange, rename, remove or copy files."""
    first, second = _any_file(rng, trace), _any_file(rng, trace)
    if first is None or second is None:
        return "nothing left"
    how = rng.choice(("swapped", "renamed", "removed", "copied", "part", "journal"))
    if how == "swapped" and first != second:
        moved = first.with_name("moved")
        first.rename(moved), second.rename(first), moved.rename(second)
    elif how == "renamed":
        first.rename(first.with_name(rng.choice([f"{table}.parquet" for table in TABLES])))
    elif how == "removed":
        first.unlink()
    elif how == "copied":
        _copy(first, trace / f"{rng.choice([*TABLES])}.parquet")
    else:
        table = rng.choice([*TABLES])
        place = trace / table / "000001.parquet" if how == "part" else trace / "journal" / f"{table}.1.arrows"
        with contextlib.suppress(FileExistsError):  # a file, or a dangling link
            place.parent.mkdir(exist_ok=True)
        _copy(first, place)
    return f"{first.name} {how} {second.name}"


def _copy(file: Path, place: Path) -> None:
    """Copy a file to `place`, but not through a link, which may lead out of the trace."""
    if place.parent.is_symlink() or not place.parent.is_dir():
        return
    copied = Path(shutil.copy(file, file.with_name("copy")))
    try:
        copied.replace(place)
    except OSError:  # a directory is there
        copied.unlink()


def _odd_files(rng: random.Random, trace: Path) -> str:
    """Replace a file by a link, a FIFO, a directory, or an unreadable file."""
    path = rng.choice([_any_file(rng, trace), trace / "journal", trace / rng.choice([*TABLES])])
    if path is None:
        return "nothing left"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind = rng.choice(("fifo", "zero", "loop", "directory", "elsewhere", "file", "unreadable", "dangling"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("file", "unreadable"):
        path.write_bytes(b"x" * 10)
        path.chmod(0o600 if kind == "file" else 0)
    else:
        target = {"zero": "/dev/zero", "loop": path.name, "elsewhere": "/etc", "dangling": "/nowhere"}[kind]
        path.symlink_to(target)
    return f"{path.name} is a {kind}"


MUTATIONS: Final[tuple[Callable[[random.Random, Path], str], ...]] = (
    *(_bytes, _meta_value, _meta_value, _values, _values, _values, _column_type),
    *(_columns, _rows, _files, _odd_files),
)
