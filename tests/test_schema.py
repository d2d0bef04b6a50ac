"""bpf/events.h and tracer/schema.py say the same: the header is compiled, and every number of it compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tracer import schema
from tracer.meanings import documentation
from tracer.wire import records as wire

BPF = Path(__file__).parents[1] / "bpf"
DOCUMENT = Path(__file__).parents[1] / "docs" / "trace-format.md"

ENUMS = {
    "category": ("CATEGORY_", schema.CATEGORIES),
    "op": ("OP_", schema.OPS),
    "cause": ("CAUSE_", schema.CAUSES),
    "reclaim_kind": ("RECLAIM_", schema.RECLAIM_KINDS),
    "target_source": ("TARGET_", schema.TARGET_SOURCES),
    "stall_kind": ("STALL_", schema.STALL_KINDS),
    "swap_io_op": ("SWAP_IO_", schema.SWAP_OPS),
    "constraint": ("CONSTRAINT_", schema.CONSTRAINTS),
    "cgroup_event_kind": ("CGROUP_", schema.CGROUP_EVENTS),
    "follow": ("FOLLOW_", schema.FOLLOW),
    "task_event_kind": ("TASK_", schema.TASK_EVENTS),
}
"""C enum -> the prefix of its enumerators and the names that they stand for, in order from 0."""

DEFINES = {
    "TRACER_COMM_LEN": wire.COMM_LEN,
    "TRACER_PATH_LEN": wire.PATH_LEN,
    "TRACER_STATE_ITEMS": wire.STATE_ITEMS,
    "TRACER_KERNEL_FRAMES": wire.KERNEL_FRAMES,
    "TRACER_USER_FRAMES": wire.USER_FRAMES,
    "CATEGORY_COUNT": len(schema.CATEGORIES),
}

PROLOGUE = """
#include <stdio.h>
#include <stddef.h>
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32; typedef unsigned long long u64;
typedef signed char s8; typedef short s16; typedef int s32; typedef long long s64;
#include "events.h"
/* 'S' an array of char; otherwise the sign of one element. */
#define KIND(x) _Generic((x), char *: 'S', u8 *: 'u', u16 *: 'u', u32 *: 'u', u64 *: 'u', \\
	s8 *: 'i', s16 *: 'i', s32 *: 'i', s64 *: 'i', \\
	u8: 'u', u16: 'u', u32: 'u', u64: 'u', s8: 'i', s16: 'i', s32: 'i', s64: 'i')
"""


def expected_of_records() -> dict[str, tuple[int, ...]]:
    """`record` -> (size,) and `record.field` -> (offset, size, ord of the kind), as wire.WIRE has them."""
    expected: dict[str, tuple[int, ...]] = {}
    for record, dtype in wire.WIRE.items():
        expected[record] = (dtype.itemsize,)
        assert dtype.fields is not None
        for field, (kind, offset, *_) in dtype.fields.items():
            expected[f"{record}.{field}"] = (offset, kind.itemsize, ord(kind.base.kind))
    return expected


def expected_of_numbers() -> dict[str, tuple[int, ...]]:
    """Every enumerator and #define that has a counterpart in schema.py."""
    enumerators = {
        prefix + name.upper(): (number,)
        for prefix, names in ENUMS.values()
        for number, name in enumerate(names)
    }
    return enumerators | {name: (value,) for name, value in DEFINES.items()}


def printing_program(records: dict[str, tuple[int, ...]], numbers: dict[str, tuple[int, ...]]) -> str:
    """C that prints a line `name number...` for each entry of both."""
    lines = []
    for name in records:
        record, _, field = name.partition(".")
        if field:
            member = f"((struct {record}_event *)0)->{field}"
            lines.append(
                f'printf("{name} %zu %zu %d\\n", offsetof(struct {record}_event, {field}), '
                f"sizeof({member}), KIND({member}));"
            )
        else:
            lines.append(f'printf("{name} %zu\\n", sizeof(struct {record}_event));')
    lines += [f'printf("{name} %d\\n", (int){name});' for name in numbers]
    return PROLOGUE + "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n"


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(
                "no C compiler, and CI must compare bpf/events.h with the schema: install gcc libc6-dev"
            )
        pytest.skip("no C compiler (cc, gcc or clang) to compile bpf/events.h with")
    return found


def test_header_and_schema_agree_on_every_size_offset_and_number(compiler: str, tmp_path: Path) -> None:
    records, numbers = expected_of_records(), expected_of_numbers()
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(printing_program(records, numbers))
    subprocess.run(
        [
            compiler,
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused",
            f"-I{BPF}",
            "-o",
            program,
            source,
        ],
        check=True,
    )
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    compiled = {
        name: tuple(map(int, values)) for name, *values in (line.split() for line in printed.splitlines())
    }
    assert compiled == records | numbers


def test_header_has_no_record_field_or_enumerator_that_the_schema_lacks() -> None:
    header = re.sub(r"/\*.*?\*/", "", (BPF / "events.h").read_text(), flags=re.DOTALL)
    structs = {
        name.removesuffix("_event"): re.findall(r"\b(\w+)(?:\[\w+\])?;", body)
        for name, body in re.findall(r"struct (\w+) \{(.*?)\};", header, flags=re.DOTALL)
    }
    assert structs == {record: list(dtype.names or ()) for record, dtype in wire.WIRE.items()}
    enums = {
        name: re.findall(r"\w+", body)
        for name, body in re.findall(r"enum (\w+) \{(.*?)\};", header, flags=re.DOTALL)
    }
    enums["category"].remove("CATEGORY_COUNT")
    assert enums == {
        enum: [prefix + name.upper() for name in names] for enum, (prefix, names) in ENUMS.items()
    }


@pytest.mark.parametrize("record", wire.WIRE)
def test_fields_are_naturally_aligned_and_records_fill_a_ring_without_padding(record: str) -> None:
    dtype = wire.WIRE[record]
    assert dtype.fields is not None
    for field, (kind, offset, *_) in dtype.fields.items():
        assert offset % kind.base.alignment == 0, field
    # A ring record is an 8-byte header and the payload, rounded up to 8 (kernel/bpf/ringbuf.c).
    assert dtype.itemsize % 8 == 0
    assert dtype == np.dtype(dtype.descr, align=True)


def test_every_table_and_column_is_documented() -> None:
    documented = documented_columns(DOCUMENT.read_text())
    assert documented == {table: declared_columns(columns) for table, columns in schema.TABLES.items()}


def test_what_help_says_of_a_column_is_what_the_document_says(
    matches_golden: Callable[[str, str], None],
) -> None:
    row = r"^(?:## `(\w+)`|\| ((?:`\w+`(?:, )?)+) \| [\w ]+(?:, or null)? \| (.*) \|)$"
    lines, table = [], ""
    for heading, columns, meaning in re.findall(row, DOCUMENT.read_text(), re.MULTILINE):
        table = heading or table
        if columns:
            named = " ".join(re.findall(r"`(\w+)`", columns))
            lines.append(f"{table}\t{named}\t{meaning}\n")
    matches_golden(str(Path(schema.__file__).with_name("meanings.tsv")), "".join(lines))


def test_help_names_every_column() -> None:
    text = documentation()
    for table, columns in schema.TABLES.items():
        (part,) = re.findall(rf"^t\.{table}$.*?(?=^t\.|\Z)", text, re.MULTILINE | re.DOTALL)
        words = set(re.findall(r"\w+", part))
        assert {*columns.names} <= words
        assert {schema.LIMITS[name] for name in columns.names if name in schema.LIMITS} <= words


def declared_columns(columns: pa.Schema) -> dict[str, tuple[str, bool]]:
    return {column.name: (type_name(column.type), column.nullable) for column in columns}


def type_name(kind: pa.DataType) -> str:
    """The word for a type in docs/trace-format.md."""
    if pa.types.is_dictionary(kind):
        return "name"
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    return "time" if kind == schema.TIME else str(kind)


def documented_columns(text: str) -> dict[str, dict[str, tuple[str, bool]]]:
    """The tables of a document: `## \\`charge\\`` begins one, `| \\`column\\` | type | ... |` is a row."""
    tables: dict[str, dict[str, tuple[str, bool]]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"## `(\w+)`", line):
            tables[heading[1]] = {}
        elif row := re.match(r"\| ((?:`\w+`(?:, )?)+) \| ([\w ]+?)(, or null)? \|", line):
            *_, columns = tables.values()
            columns |= {name: (row[2], bool(row[3])) for name in re.findall(r"`(\w+)`", row[1])}
    return tables
