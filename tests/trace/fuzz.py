"""Mutations of small traces, each read by every reading verb: what is broken gives one line, never more.

`make fuzz` reads thousands; test_fuzz.py some of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import click
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.cli.group import group
from tracer.errors import TracerError
from tracer.schema import TABLES, UNLIMITED_BYTES
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter

RECORDED: Final = Path(__file__).parents[2] / "traces"
SOURCES: Final = ("page-cache", "thrash", "group-kill", "parent-limit")
MOST_SECONDS: Final = 30.0  # of one verb
PAGE_EACH: Final = 10  # the report draws pictures, which takes as long as all other verbs
SHARE: Final = 50  # mutations that a process reads before it takes the next ones
MOST_KIB: Final = 3 << 20  # of this process, ever

VERBS: Final = (
    (("info", "{trace}"), ("info", "{trace}", "--json")),
    (("explain", "{trace}"), ("explain", "{trace}", "--json"), ("explain", "{trace}", "-v")),
    (
        ("timeline", "{trace}"),
        ("timeline", "{trace}", "--csv"),
        ("timeline", "{trace}", "--json", "--every", "1s"),
    ),
    (
        ("evictions", "{trace}"),
        ("evictions", "{trace}", "--by", "cgroup"),
        ("evictions", "{trace}", "--by", "process", "--json"),
    ),
    (("export", "{trace}", "--to", "folded", "-o", "-"),),
)
"""Each verb with the forms of its answer. A mutation is read by every verb, in one form: to read and reckon
takes the time, and is the same for all forms."""
REPORT: Final = ("report", "{trace}", "-f", "-o", "{trace}.html")

INTEGERS: Final = (
    *(0, 1, -1, 2, 7, 41, 4096, 1 << 20, -(1 << 20), 1 << 31, (1 << 31) - 1, -(1 << 31), 1 << 40),
    *(UNLIMITED_BYTES, UNLIMITED_BYTES - 1, (1 << 63) - 1, -(1 << 63), 1 << 62, -(1 << 62)),
    *(1_764_000_000_000_000_000, 7_258_118_400_000_000_000, 7_258_118_399_999_999_999),
)
TEXTS: Final = (
    *("", "x", "/", "/a/b", "\x1b[31m", "\n", "\0", "\\xff", "é", "a" * 70_000, "a" * 200_000, "<b>&'\""),
    *("memcg", "global", "anon", "kernel", "%s", "{0}", "8:1", "../..", "\u202e", "\ud7ff", "[bold]"),
)
VALUES: Final = (
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
    """Copies of recorded traces in `folder`, and of one as its recorder's death would have left it."""
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
    """Damage the trace in one to three ways, and return what was done."""
    return "; ".join(rng.choice(MUTATIONS)(rng, trace) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _any_file(rng: random.Random, trace: Path, pattern: str = "*") -> Path | None:
    files = sorted(path for path in trace.rglob(pattern) if path.is_file() and not path.is_symlink())
    return rng.choice(files) if files else None


def _bytes(rng: random.Random, trace: Path) -> str:
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
    """Values of the right type in one column, or NULL."""
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
        with contextlib.suppress(FileExistsError):  # as a file, or as a link that leads nowhere
            place.parent.mkdir(exist_ok=True)
        _copy(first, place)
    return f"{first.name} {how} {second.name}"


def _copy(file: Path, place: Path) -> None:
    """Replace what is at the place, but write through no link: one may lead out of the trace."""
    if place.parent.is_symlink() or not place.parent.is_dir():
        return
    copied = Path(shutil.copy(file, file.with_name("copy")))
    try:
        copied.replace(place)
    except OSError:  # a directory is there
        copied.unlink()


def _odd_files(rng: random.Random, trace: Path) -> str:
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


def check(rng: random.Random, trace: Path, *, page: bool) -> Counter[str]:
    """Read the trace by each verb, and count what came of it; raises where that is more than a line."""
    outcomes: Counter[str] = Counter()
    for verb in (*map(rng.choice, VERBS), *([REPORT] if page else [])):
        arguments = [part.format(trace=trace) for part in verb]
        begin = time.monotonic()
        outcome = _outcome(arguments)
        took = time.monotonic() - begin
        assert took < MOST_SECONDS, f"{verb[0]} took {took:.0f} s"
        outcomes[outcome] += 1
    used_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert used_kib < MOST_KIB, f"{used_kib >> 10} MiB of memory"
    return outcomes


def _outcome(arguments: list[str]) -> str:
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with (
            contextlib.redirect_stdout(written),
            contextlib.redirect_stderr(io.StringIO()) as said,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("error", UserWarning)
            group.main(args=arguments, prog_name="memcg-tracer", standalone_mode=False)
    except TracerError as error:
        shown = str(error)
        assert shown and len(shown) < 4000, arguments
        return "refused"
    except click.ClickException as error:
        raise AssertionError(f"{arguments}: {error.format_message()}") from error
    written.flush()
    assert not said.getvalue(), said.getvalue()[:500]
    return "read"


def mutations(seed: int, numbers: range) -> Iterator[Counter[str]]:
    """What came of reading each of these mutations."""
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-fuzz-") as folder:
        sources = recorded(Path(folder))
        for number in numbers:
            rng = random.Random(f"{seed}-{number}")
            trace = Path(folder) / "mutated"
            shutil.copytree(rng.choice(sources), trace)
            done = "the mutation"
            try:
                done = mutate(rng, trace)
                yield check(rng, trace, page=number % PAGE_EACH == 0)
            except Exception as error:
                error.add_note(f"mutation {number} of seed {seed}: {done}")
                raise
            finally:
                shutil.rmtree(trace)


def _share(seed: int, numbers: range) -> tuple[Counter[str], int, str]:
    """What came of reading these mutations, the most KiB of memory, and the traceback of what broke (empty:
    nothing did)."""
    outcomes, broke = Counter[str](), ""
    try:
        for found in mutations(seed, numbers):
            outcomes += found
    except Exception:
        broke = traceback.format_exc()
    return outcomes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, broke


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="how many traces")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begin, last = time.monotonic(), options.first + options.count
    outcomes, used_kib, broken = Counter[str](), 0, 0
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [range(first, min(first + SHARE, last)) for first in range(options.first, last, SHARE)]
        for found, kib, broke in pool.map(_share, [options.seed] * len(shares), shares):
            outcomes, used_kib, broken = outcomes + found, max(used_kib, kib), broken + bool(broke)
            if broke:
                print(broke, flush=True)
    took = time.monotonic() - begin
    print(
        f"{options.count:,} traces, {outcomes['read']:,} times read and {outcomes['refused']:,} times "
        f"refused in one line, {took:,.0f} s, {used_kib >> 10} MiB of memory: "
        + (
            f"{broken} broke something, and ended a share of up to {SHARE}"
            if broken
            else "none broke anything"
        )
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
