"""Tables as files for other tools: Parquet, and CSV that spreadsheets can open without harm.

Spreadsheets evaluate a text that begins with `=`, `+`, `-` or `@` (or their full-width forms) as a formula.
In CSV, such a text gets a `'` before it, and so does a text that begins with `'`: removing the first `'`
gives the name again. Before that, characters that act on a terminal or end a line are escaped
(`render.words.escape`), so no text begins with a tab or a line end. Numbers, times and flags are written
plainly. A null is an empty field, an empty text is `""`. A list (the functions of a stack) is one text, with
`;` between its items, as in folded stacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import IO, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tracer.render.export.folded import joined
from tracer.render.words.escape import visible

_FORMULA: Final = re.compile(r"['=+\-@＝＋－＠]")


def write_parquet(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
    """Write a table with a row group for each batch. Names are not escaped."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(batch)


def write_csv(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
    """Write a table below a line of column names."""
    plain = pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])
    with pyarrow.csv.CSVWriter(file, plain) as writer:
        for batch in batches:
            columns = [_texts(column) if _is_text(column.type) else column for column in batch.columns]
            writer.write_table(pa.Table.from_arrays(columns, schema=plain))


def _is_text(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.DictionaryType | pa.ListType) or kind == pa.string()


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if _is_text(kind) else kind


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return the texts in their safe form. Each distinct text is processed once."""
    values = column.combine_chunks()
    if isinstance(values.type, pa.ListType):
        lists = [None if items is None else joined(items) for items in values.to_pylist()]
        values = pa.array(lists, pa.string())
    coded = values if isinstance(values.type, pa.DictionaryType) else values.dictionary_encode()
    safe = [None if text is None else _safe(text) for text in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(safe, pa.string())).dictionary_decode()


def _safe(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown
