"""The meanings of the columns of a trace, for `help()`.

tests/test_schema.py makes meanings.tsv from the tables of docs/trace-format.md, and fails where the two
differ. A row has a table, its columns separated by spaces, and their meaning.
"""

from __future__ import annotations

import textwrap
from importlib import resources

import pyarrow as pa

from tracer.schema import LIMITS, TABLES

Meanings = list[tuple[str, str]]


def read_meanings() -> dict[str, Meanings]:
    """Return table -> (columns, their meaning), in the order of the document."""
    found: dict[str, Meanings] = {}
    for line in resources.files("tracer").joinpath("meanings.tsv").read_text("utf-8").splitlines():
        table, columns, meaning = line.split("\t")
        found.setdefault(table, []).append((columns, meaning))
    return found


def documentation() -> str:
    """Return a text with each table and its columns: name, type and meaning."""
    meanings = read_meanings()
    return "\n\n".join(_table_text(table, meanings[table]) for table in TABLES)


def _table_text(table: str, meanings: Meanings) -> str:
    schema, lines = TABLES[table], [f"t.{table}"]
    for columns, meaning in meanings:
        fields = [schema.field(name) for name in columns.split()]
        nullable = ", or NA" if fields[0].nullable else ""
        head = f"  {', '.join(field.name for field in fields)} ({_kind(fields[0].type)}{nullable}): "
        lines += textwrap.wrap(head + meaning, 96, subsequent_indent="      ")
        flags = [LIMITS[field.name] for field in fields if field.name in LIMITS]
        if flags:
            lines.append(f"  {', '.join(flags)} (boolean): whether there is such a limit; NA: not known")
    return "\n".join(lines)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "categorical"
    return "UTC time" if pa.types.is_timestamp(kind) else str(kind)
