"""The wire records, bpf/events.h, the tables and their document agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.storing.documented_tables import declared_columns, documented_columns

from tracer import schema
from tracer.enumerations import ENUMERATIONS
from tracer.meanings import documentation
from tracer.wire import c_headers
from tracer.wire.c_headers import event_header
from tracer.wire.dtypes import SAMPLE, WATCHED, WIRE
from tracer.wire.fields import LENGTHS, Field, Record
from tracer.wire.streams import LOSSES, RING_BYTES, STREAM_AT, STREAMS

BPF = Path(__file__).parents[1] / "bpf"
DOCUMENT = Path(__file__).parents[1] / "docs" / "trace-format.md"

DTYPES = {**WIRE, "sample": SAMPLE, "watched": WATCHED}

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
    """Return `record` -> (size,) and `record.field` -> (offset, size, ord of the kind), from the dtypes."""
    expected: dict[str, tuple[int, ...]] = {}
    for record, dtype in DTYPES.items():
        expected[record] = (dtype.itemsize,)
        assert dtype.fields is not None
        for field, (kind, offset, *_) in dtype.fields.items():
            expected[f"{record}.{field}"] = (offset, kind.itemsize, ord(kind.base.kind))
    return expected


def expected_of_numbers() -> dict[str, tuple[int, ...]]:
    """Return every enumerator and length -> (number,)."""
    numbers = dict(LENGTHS)
    for enumeration in (*ENUMERATIONS, LOSSES):
        numbers |= enumeration.enumerators()
    return {name: (number,) for name, number in numbers.items()}


def printing_program(records: dict[str, tuple[int, ...]], numbers: dict[str, tuple[int, ...]]) -> str:
    """Return a C program that prints a line `name number...` for each entry of both mappings."""
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


def test_compiled_header_has_every_size_offset_and_number_of_the_table(compiler: str, tmp_path: Path) -> None:
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


def test_committed_header_is_the_generated_text(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden(str(BPF / "events.h"), event_header())


def test_header_text_of_a_misaligned_field_writes_the_padding_down(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Record("made", "Made.", (Field("kind", "u8"), Field("cpu", "u16", "where it waited")))
    monkeypatch.setattr(c_headers, "STREAMS", (replace(STREAM_AT["stall"], record=made),))
    members = "\tu8 kind;\n\tu8 pad[1];\n\tu16 cpu; /* where it waited */\n\tu8 pad2[4];\n"
    assert f"/* Made. */\nstruct made_event {{\n{members}}};\n" in event_header()
    assert '_Static_assert(sizeof(struct made_event) == 8, "size");' in event_header()


@pytest.mark.parametrize("record", DTYPES)
def test_record_fields_are_naturally_aligned_and_fill_a_ring(record: str) -> None:
    dtype = DTYPES[record]
    assert dtype.fields is not None
    for field, (kind, offset, *_) in dtype.fields.items():
        assert offset % kind.base.alignment == 0, field
    # A ring record is an 8-byte header and the payload, rounded up to 8 (kernel/bpf/ringbuf.c).
    assert dtype.itemsize % 8 == 0
    assert dtype == np.dtype(dtype.descr, align=True)


@pytest.mark.parametrize("page_bytes", [4096, 16_384, 65_536])
def test_ring_size_with_any_page_size_is_a_power_of_two_of_pages(page_bytes: int) -> None:
    for name, size in RING_BYTES.items():
        pages, rest = divmod(size, page_bytes)
        assert (pages.bit_count(), rest) == (1, 0), name


def test_stream_names_a_table_and_fields_that_exist() -> None:
    assert (
        len({stream.name for stream in STREAMS}) == len({stream.table for stream in STREAMS}) == len(STREAMS)
    )
    for stream in STREAMS:
        assert stream.table in schema.TABLES
        named = {field.name for field in stream.record.fields}
        assert named.issuperset((*stream.owners, *stream.actors))


def test_documented_tables_and_columns_are_those_of_the_schema() -> None:
    documented = documented_columns(DOCUMENT.read_text())
    assert documented == {table: declared_columns(columns) for table, columns in schema.TABLES.items()}


def test_meanings_of_columns_are_those_of_the_document(
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


def test_help_text_names_every_column() -> None:
    text = documentation()
    for table, columns in schema.TABLES.items():
        (part,) = re.findall(rf"^t\.{table}$.*?(?=^t\.|\Z)", text, re.MULTILINE | re.DOTALL)
        words = set(re.findall(r"\w+", part))
        assert {*columns.names} <= words
        assert {schema.LIMITS[name] for name in columns.names if name in schema.LIMITS} <= words
