"""The tables of a document, and of a schema, in one form to compare them."""

from __future__ import annotations

import re

import pyarrow as pa

from tracer import schema


def declared_columns(columns: pa.Schema) -> dict[str, tuple[str, bool]]:
    return {column.name: (type_name(column.type), column.nullable) for column in columns}


def type_name(kind: pa.DataType) -> str:
    """Return the word for a type in the documents."""
    if pa.types.is_dictionary(kind):
        return "name"
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if pa.types.is_date(kind):
        return "date"
    return "time" if kind == schema.TIME else str(kind)


def documented_columns(text: str) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the tables of a document: a heading `## \\`charge\\`` of any level begins one, and
    `| \\`column\\` | type |` is a row."""
    tables: dict[str, dict[str, tuple[str, bool]]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"##+ `(\w+)`", line):
            tables[heading[1]] = {}
        elif row := re.match(r"\| ((?:`\w+`(?:, )?)+) \| ([\w ]+?)(, or null)? \|", line):
            *_, columns = tables.values()
            columns |= {name: (row[2], bool(row[3])) for name in re.findall(r"`(\w+)`", row[1])}
    return tables
