"""Decoding of records: sums exact to the page, unknown values null, victims of one decision together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.rows import decode
from tracer.capture.rows.decode import PAGE_BYTES, Decoder, sample_row, stack_columns, state_reading, text
from tracer.enumerations import CATEGORY, CAUSE, CONSTRAINT, OP, RECLAIM_KIND
from tracer.schema import TABLES, UNLIMITED_BYTES
from tracer.trace.arrow_columns import rows_of
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import EFFECTIVE, STREAM_AT, STREAMS, Stream

OFFSET_NS = 1_700_000_000_000_000_000
BY_THE_BYTE = ("slab_reclaimable", "slab_unreclaimable", "percpu")


def records(stream: str, *rows: dict[str, Any]) -> npt.NDArray[np.void]:
    made = np.zeros(len(rows), WIRE[stream])
    for record, row in zip(made, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return made


def decoded(stream: str, *rows: dict[str, Any], offset_ns: int = 0) -> list[dict[str, Any]]:
    """Return the rows of records whose other fields are 0."""
    batch = Decoder(offset_ns).rows(STREAM_AT[stream], records(stream, *rows))
    listed: list[dict[str, Any]] = batch.to_pylist()
    return listed


def only(stream: str, **row: Any) -> np.void:
    record: np.void = records(stream, row)[0]
    return record


def change(category: str, delta_bytes: int) -> dict[str, Any]:
    """Return the field of a `charge` record in which one category changed."""
    return {"delta_bytes": [delta_bytes * (name == category) for name in CATEGORY.names]}


changes = st.lists(
    st.tuples(st.sampled_from([7, 8]), st.sampled_from(BY_THE_BYTE), st.integers(-40_000, 40_000)),
    max_size=60,
)


@given(changes, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 60))
def test_pages_over_any_rows_sum_to_the_bytes(
    changes: list[tuple[int, str, int]], cuts: list[int], residue_from: int
) -> None:
    """Cut into any batches, and with the last changes as residue."""
    decoder = Decoder(0)
    shown: dict[tuple[int, str], int] = {}
    true: dict[tuple[int, str], int] = {}
    streamed, left_over = changes[:residue_from], changes[residue_from:]
    edges = [0, *sorted(min(cut, len(streamed)) for cut in cuts), len(streamed)]
    batches = [
        decoder.rows(
            STREAM_AT["charge"],
            records(
                "charge",
                *(
                    {"cgroup_id": cgroup} | change(category, delta)
                    for cgroup, category, delta in streamed[begin:end]
                ),
            ),
        )
        for begin, end in pairwise(edges)
    ]
    sums: dict[tuple[int, int], int] = {}
    for cgroup, category, delta in left_over:
        number = CATEGORY.number(category)
        sums[cgroup, number] = sums.get((cgroup, number), 0) + delta
    batches.append(decoder.residue(0, sums))
    for cgroup, category, delta in changes:
        true[cgroup, category] = true.get((cgroup, category), 0) + delta
    for row in pa.Table.from_batches(batches).to_pylist():
        key = (row["cgroup_id"], row["category"])
        shown[key] = shown.get(key, 0) + row["pages"]
    assert {key: shown.get(key, 0) for key in true} == {
        key: total // PAGE_BYTES for key, total in true.items()
    }


def test_charge_record_becomes_a_row_for_each_category_that_changed() -> None:
    changed = {"anon": 3, "file": -2, "kernel_stack": 4}
    record = {"tgid": 41, "delta_bytes": [changed.get(name, 0) * PAGE_BYTES for name in CATEGORY.names]}
    made = decoded("charge", record, {"tgid": 42} | change("file", PAGE_BYTES), {"tgid": 43})
    assert [(row["tgid"], row["category"], row["pages"]) for row in made] == [
        (41, "anon", 3),
        (41, "file", -2),
        (41, "kernel_stack", 4),
        (42, "file", 1),
    ]


def test_charge_row_has_the_fields_in_bytes() -> None:
    known = {"time_ns": 5, "cgroup_id": 7, "tgid": 41, "updates": 2, "usage_pages": 3, "limit_pages": 25_600}
    (row,) = decoded("charge", known | change("anon", 1), offset_ns=OFFSET_NS)
    assert row["time"].value == OFFSET_NS + 5
    assert (row["cgroup_id"], row["tgid"], row["updates"]) == (7, 41, 2)
    assert (row["usage_bytes"], row["limit_bytes"]) == (3 * PAGE_BYTES, 100 << 20)


def test_residue_rows_have_no_process_and_no_counter() -> None:
    (row,) = Decoder(0).residue(9, {(7, CATEGORY.number("file")): 2 * PAGE_BYTES}).to_pylist()
    assert (row["pages"], row["bytes"], row["category"]) == (2, 8192, "file")
    assert (row["tgid"], row["usage_bytes"], row["limit_bytes"]) == (None, None, None)
    assert Decoder(0).residue(9, {}).num_rows == 0


def test_pagecache_row_without_owner_has_a_null_cgroup() -> None:
    largest = (1 << 63) - 1
    of_seven = {
        "cgroup_id": 7,
        "op": 1,
        "cause": CAUSE.number("truncate"),
        "inode_id": largest,
        "nr_pages": 512,
        "duration_ns": 9_999_999,
        "folios": 3,
    }
    first, second = decoded("pagecache", {"ino": 2**64 - 1}, of_seven)
    assert (first["cgroup_id"], first["op"], first["cause"], first["ino"]) == (
        None,
        OP.names[0],
        "other",
        2**64 - 1,
    )
    assert (second["cgroup_id"], second["op"], second["cause"]) == (7, "delete", "truncate")
    assert (second["inode_id"], second["nr_pages"]) == (largest, 512)
    assert (second["duration_ns"], second["folios"]) == (9_999_999, 3)


def test_sum_of_runs_has_no_index_and_of_many_files_no_file() -> None:
    folio = {"inode_id": 5, "ino": 6, "tgid": 41, "dev": 7, "index": 0, "nr_pages": 1}
    of_a_file = folio | {"index": decode.NO_INDEX}
    of_many = of_a_file | dict.fromkeys(("inode_id", "ino", "tgid"), 0)
    rows = decoded("pagecache", folio, of_a_file, of_many)
    assert [[row[name] for name in ("index", "inode_id", "ino", "tgid", "dev")] for row in rows] == [
        [0, 5, 6, 41, 7],
        [None, 5, 6, 41, 7],
        [None, None, None, None, 7],
    ]


def test_reclaim_row_has_nulls_for_unknown_values() -> None:
    known = {"cgroup_id": 7, "scanned_anon": 3, "scanned_file": 4, "reclaimed": 5, "usage_pages": 6}
    unknown = {"kind": RECLAIM_KIND.number("kswapd"), "priority": -1, "order": -1, "usage_pages": 6}
    first, second = decoded("reclaim", known | {"priority": 12}, unknown)
    assert (first["kind"], first["scanned"], first["reclaimed"], first["priority"]) == ("memcg", 7, 5, 12)
    assert (first["order"], first["usage_bytes"]) == (0, 6 * PAGE_BYTES)
    assert second["kind"] == "kswapd"
    nulls = ("cgroup_id", "priority", "order", "usage_bytes", "limit_bytes")
    assert [second[name] for name in nulls] == [None] * 5


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream.is_bulk], ids=lambda it: it.name)
@pytest.mark.parametrize("count", [0, 3])
def test_batch_of_any_stream_fits_its_table(stream: Stream, count: int) -> None:
    no_stacks = np.full(count, -1)
    columns = stack_columns(no_stacks, no_stacks) if stream.needs_stacks else {}
    changed = change("file", PAGE_BYTES) if stream.name == "charge" else {}
    batch = Decoder(0).rows(stream, records(stream.name, *[changed] * count), **columns)
    assert batch.num_rows == count
    assert batch.schema.names == TABLES[stream.table].names
    for field in TABLES[stream.table]:
        column = batch.column(field.name)
        assert column.cast(field.type).null_count == 0 or field.nullable


def test_kill_id_of_the_victims_of_one_decision_is_shared() -> None:
    decoder = Decoder(0)
    decisions = [(10, 1), (10, 1), (11, 1), (10, 2), (10, 1)]
    made = [decoder.kill_id(only("oom", trigger_pid=pid, invocation=n)) for pid, n in decisions]
    assert made == [1, 1, 2, 3, 1]


def test_oom_row_has_the_fields_in_bytes() -> None:
    record = only(
        "oom", time_ns=5, constraint=CONSTRAINT.number("memcg"), owner_cgroup_id=7, owner_usage_pages=25_600,
        owner_limit_pages=25_600, trigger_comm=b"\xff\x1b[31m", victim_comm=b"sixteen-bytes-xx",
        victim_pid=41, anon_pages=24_000, swap_entries=0, pgtables_bytes=4096, oom_score_adj=-998, gfp=0xCC0,
        user_stack_id=-14, total_vm_pages=90_000, data_vm_pages=50_000, exec_vm_pages=900, stack_vm_pages=33,
        victim_threads=3,
    )  # fmt: skip
    row = Decoder(OFFSET_NS).oom(record)
    assert (row["time"], row["ktime_ns"], row["kill_id"]) == (OFFSET_NS + 5, 5, 1)
    assert (row["constraint"], row["limit_owner_cgroup_id"], row["usage_bytes"]) == ("memcg", 7, 100 << 20)
    assert (row["trigger_comm"], row["comm"], row["pid"]) == ("\\xff\x1b[31m", "sixteen-bytes-xx", 41)
    assert (row["anon_rss_bytes"], row["swap_bytes"], row["pgtables_bytes"]) == (24_000 * PAGE_BYTES, 0, 4096)
    mapped_pages = {"total": 90_000, "data": 50_000, "exec": 900, "stack": 33}
    assert {kind: row[f"{kind}_vm_bytes"] for kind in mapped_pages} == {
        kind: pages * PAGE_BYTES for kind, pages in mapped_pages.items()
    }
    assert (row["oom_score_adj"], row["gfp"], row["threads"]) == (-998, 0xCC0, 3)
    assert (row["kernel_stack_id"], row["user_stack_id"]) == (0, None)
    assert rows_of("oom", [row]).schema.names == TABLES["oom"].names


def test_oom_row_with_unknown_values_has_nulls() -> None:
    row = Decoder(0).oom(only("oom", anon_pages=-1, kernel_stack_id=-1, user_stack_id=-1, order=-1))
    assert {name for name, value in row.items() if value is None} == {
        "limit_owner_cgroup_id", "usage_bytes", "limit_bytes", "gfp", "order", "total_bytes",
        "kernel_stack_id", "user_stack_id",
        "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes", "swap_bytes",
        "total_vm_bytes", "data_vm_bytes", "exec_vm_bytes", "stack_vm_bytes",
    }  # fmt: skip


def test_reclaim_row_sums_the_page_counts_of_both_lists() -> None:
    met = {
        "nr_dirty_anon": 3,
        "nr_dirty_file": 5,
        "nr_ref_keep_file": 7,
        "throttles": 2,
        "cpu_ns": 700,
        "slab_reclaimed": 11,
    }
    row = decoded("reclaim", met)[0]
    assert (row["nr_dirty"], row["nr_dirty_anon"], row["nr_dirty_file"]) == (8, 3, 5)
    assert (row["nr_ref_keep"], row["nr_ref_keep_anon"], row["nr_activate"]) == (7, 0, 0)
    assert (row["throttles"], row["slab_reclaimed"], row["slab_scanned"]) == (2, 11, 0)
    assert row["cpu_ns"] == 700


def test_stall_rows_have_kinds_by_name() -> None:
    waits = [{"time_ns": 5, "duration_ns": 9, "cgroup_id": 7, "pid": 3, "kind": kind} for kind in (1, 4)]
    rows = decoded("stall", *waits, offset_ns=100)
    assert [(row["time"].value, row["duration_ns"], row["kind"]) for row in rows] == [
        (105, 9, "dirty"),
        (105, 9, "noprogress"),
    ]


def test_swap_io_row_without_an_end_has_nulls() -> None:
    whose = {"cgroup_id": 7, "task_cgroup_id": 8, "tgid": 3, "pid": 4, "nr_pages": 32, "op": 1}
    seen, unseen = {"time_ns": 5, "duration_ns": 9} | whose, {"time_ns": 6, "nr_pages": 1}
    over, open_ended = decoded("swap_io", seen, unseen, offset_ns=100)
    assert over.pop("time").value == 105
    assert over == {"duration_ns": 9} | whose | {"op": "read"}
    assert open_ended["op"] == "write"
    assert (open_ended["duration_ns"], open_ended["cgroup_id"], open_ended["nr_pages"]) == (None, None, 1)


def test_wait_for_no_file_has_no_inode() -> None:
    waits = {"duration_ns": 9, "cgroup_id": 7, "tgid": 3, "waits": 2, "wait_ns": 11}
    known, unknown = decoded("file_wait", waits | {"time_ns": 5, "inode_id": 1}, waits, offset_ns=100)
    assert known.pop("time").value == 105
    assert known == waits | {"inode_id": 1}
    assert unknown["inode_id"] is None


def test_candidate_rows_mark_the_chosen_process() -> None:
    decoder = Decoder(1000)
    never = {"badness": -(1 << 63), "oom_score_adj": -1000, "anon_pages": -1}
    weighed = records(
        "candidate",
        {"time_ns": 5, "tgid": 7, "pid": 8, "badness": 300, "anon_pages": 290, "file_pages": 6, "comm": b"a"},
        {"time_ns": 6, "tgid": 9, "pid": 9, "badness": -2, "swap_entries": 3, "pgtables_bytes": 4096},
        {"time_ns": 7, "tgid": 1, "pid": 1, **never},
    )
    chosen, other, unkillable = decoder.candidates(weighed, 4, 7)
    assert (chosen["kill_id"], chosen["chosen"], chosen["time"], chosen["comm"]) == (4, True, 1005, "a")
    assert (chosen["badness"], chosen["rss_bytes"], chosen["swap_bytes"]) == (300, 296 * PAGE_BYTES, 0)
    assert (other["badness"], other["chosen"], other["swap_bytes"]) == (-2, False, 3 * PAGE_BYTES)
    assert (unkillable["badness"], unkillable["rss_bytes"], unkillable["pgtables_bytes"]) == (None,) * 3
    batch = rows_of("oom_candidates", [chosen, other, unkillable])
    assert batch.column("pid").to_pylist() == [8, 9, 1]


def test_oom_row_of_an_inferred_decision_has_nulls() -> None:
    told = Decoder(0).oom(only("oom", is_told=1, order=0, gfp=0xCC0, total_pages=25_600))
    assert (told["is_told"], told["order"], told["gfp"]) == (True, 0, 0xCC0)
    assert told["total_bytes"] == 100 << 20
    inferred = Decoder(0).oom(only("oom", is_told=0, order=-1))
    assert (inferred["is_told"], inferred["order"], inferred["total_bytes"]) == (False, None, None)


@pytest.mark.parametrize("page_bytes", [4096, 16_384, 65_536])
def test_no_limit_with_any_page_size_is_unlimited(page_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PAGE_BYTES", page_bytes)
    page_counter_max = (2**63 - 1) // page_bytes
    known = [{"cgroup_id": 7, "limit_pages": pages} for pages in (page_counter_max, page_counter_max - 1, 25)]
    expected = [UNLIMITED_BYTES, (page_counter_max - 1) * page_bytes, 25 * page_bytes]
    for table, changed in (("charge", change("anon", 1)), ("reclaim", {})):
        assert [row["limit_bytes"] for row in decoded(table, *(row | changed for row in known))] == expected
    kill = only("oom", owner_cgroup_id=7, owner_limit_pages=page_counter_max)
    assert Decoder(0).oom(kill)["limit_bytes"] == UNLIMITED_BYTES
    sample = Decoder(0).oom_sample(kill, {}, version=2)
    assert sample is not None
    assert sample["limit_bytes"] == UNLIMITED_BYTES


COUNTS = {"pgscan": 4, "pgsteal": 8}
POSITIONS = {"NR_ANON_MAPPED": 3, "NR_KERNEL_STACK_KB": 0, "MEMCG_PERCPU_B": 5, "WORKINGSET_REFAULT_FILE": 9}
STATE = [16, 0, 0, 24_000, 0, 1234, 0, 0, 0, 77, *[0] * 54]


NO_LIMIT_PAGES = np.iinfo(np.int64).max // PAGE_BYTES
V1 = dict.fromkeys((field.name for field in EFFECTIVE), -1)
"""What a memcg of v1 may lack."""


def test_oom_sample_has_what_the_owner_shares_with_its_ancestors() -> None:
    pages = {
        "effective_limit_pages": 100, "effective_high_pages": NO_LIMIT_PAGES, "effective_min_pages": 0,
        "effective_low_pages": -1, "effective_swap_limit_pages": 9, "swap_room_pages": 4,
        "protected_pages": 7, "peak_pages": 101,
    }  # fmt: skip
    record = only("oom", owner_cgroup_id=7, owner_has_children=1, swap_bound_levels=2, **pages)
    row = Decoder(0).oom_sample(record, {}, version=2)
    assert row is not None
    assert row["swap_bound_levels"] == 2
    assert {name: row[name.replace("_pages", "_bytes")] for name in pages} == {
        name: None if size < 0 else UNLIMITED_BYTES if size == NO_LIMIT_PAGES else size * PAGE_BYTES
        for name, size in pages.items()
    }


def test_oom_sample_has_the_counters_of_the_owner() -> None:
    record = only("oom", owner_cgroup_id=7, state_items=10, state=STATE, pgscan=40, pgsteal=30, **V1)
    row = Decoder(0).oom_sample(record, POSITIONS | COUNTS, version=2)
    assert row is not None
    known = {name: value for name, value in row.items() if value is not None and name.endswith("_bytes")}
    assert known == {
        "usage_bytes": 0, "limit_bytes": 0, "anon_bytes": 24_000 * PAGE_BYTES,
        "kernel_stack_bytes": 16 << 10, "percpu_bytes": 1234,
    }  # fmt: skip
    assert (row["source"], row["kill_id"], row["workingset_refault_file"]) == ("oom", 1, 77)
    assert (row["pgscan"], row["pgsteal"]) == (40, 30)


@pytest.mark.parametrize(
    ("known", "positions"),
    [
        ({"owner_has_children": 1, "state_items": 10}, POSITIONS | COUNTS),
        ({"state_items": 0}, POSITIONS | COUNTS),
        ({"state_items": 10}, {}),
    ],
)
def test_oom_sample_of_unknown_counters_has_none(known: dict[str, int], positions: dict[str, int]) -> None:
    """An owner with children, counters that were not read, and counters whose positions are not known."""
    record = only("oom", owner_cgroup_id=7, state=STATE, **V1, **known)
    row = Decoder(0).oom_sample(record, positions, version=2)
    assert row is not None
    always = {"time", "cgroup_id", "source", "kill_id", "usage_bytes", "limit_bytes"}
    assert {name for name, value in row.items() if value is not None} == always


def test_oom_sample_without_an_owner_is_none() -> None:
    assert Decoder(0).oom_sample(only("oom"), POSITIONS, version=2) is None


def test_state_reading_converts_units_to_bytes() -> None:
    values = {"NR_FILE_PAGES": 2, "NR_SLAB_RECLAIMABLE_B": 100, "MEMCG_KMEM": 3, "NR_PAGETABLE": 4}
    assert state_reading(values) == {
        "file_bytes": 8192, "slab_reclaimable_bytes": 100, "kernel_bytes": 12_288,
        "page_tables_bytes": 16_384,
    }  # fmt: skip


def test_rows_of_partly_known_samples_have_nulls() -> None:
    row = sample_row(OFFSET_NS, 7, "start") | {"usage_bytes": 0}
    (read,) = rows_of("samples", [row]).to_pylist()
    assert (read["cgroup_id"], read["source"], read["usage_bytes"], read["anon_bytes"]) == (
        7,
        "start",
        0,
        None,
    )
    assert rows_of("samples", []).num_rows == 0


@given(st.binary(max_size=16))
def test_text_of_any_name_can_be_stored(name: bytes) -> None:
    shown = text(np.array([name], "S16")[0])
    assert shown.encode().count(b"\0") == 0
    if name.isascii():
        assert shown == name.split(b"\0")[0].decode()
