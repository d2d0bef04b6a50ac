"""Records that wait to become rows: in order, all of them, and not too many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tracer.capture import bulk_records
from tracer.capture.bpf.ring import Records
from tracer.capture.bulk_records import BulkRecords
from tracer.capture.rows import page_sums
from tracer.capture.rows.decode import Decoder
from tracer.wire.dtypes import WIRE

NONE = {name: np.zeros(0, kind) for name, kind in WIRE.items()}


class Sink:
    """Collects the times of the rows of each batch, with its table."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []

    def append(self, table: str, batch: pa.RecordBatch) -> None:
        self.batches.append((table, batch.column("time").cast(pa.int64()).to_pylist()))


class Numbers:
    """Numbers stacks, and keeps the times of the samples whose stacks it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def number(self, records: Records) -> tuple[Any, Any]:
        self.asked.append(records["time_ns"].tolist())
        return np.zeros(len(records), np.int64), np.zeros(len(records), np.int64)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def stacks() -> Numbers:
    return Numbers()


@pytest.fixture
def records(sink: Any, stacks: Any) -> BulkRecords:
    return BulkRecords(Decoder(0), sink, stacks)


def some(stream: str, times_ns: Iterable[int]) -> dict[str, Records]:
    made = np.zeros(len(times := [*times_ns]), WIRE[stream])
    made["time_ns"] = times
    return NONE | {stream: made}


def test_records_of_several_reads_become_one_batch_in_their_order(records: BulkRecords, sink: Sink) -> None:
    records.add(some("pagecache", [3, 5]))
    records.add(some("stall", [4]))
    records.add(NONE)
    records.add(some("pagecache", [7, 6]))
    assert sink.batches == []
    records.write()
    assert sorted(sink.batches) == [("pagecache", [3, 5, 7, 6]), ("stalls", [4])]
    sink.batches.clear()
    records.write()
    assert sink.batches == []


@pytest.mark.parametrize("is_first", [True, False])
def test_runs_and_sums_of_the_page_cache_become_one_batch(
    records: BulkRecords, sink: Sink, is_first: bool
) -> None:
    """Sums have wider fields: a read with sums comes before one without, or after it."""
    sums = some("pagecache", [3, 5])["pagecache"].astype(page_sums._SUM)
    reads = [NONE | {"pagecache": sums}, some("pagecache", [4, 6])]
    for read in reads if is_first else reversed(reads):
        records.add(read)
    records.write()
    assert sink.batches == [("pagecache", [3, 5, 4, 6] if is_first else [4, 6, 3, 5])]


def test_many_records_are_to_become_rows_at_once(
    records: BulkRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_records, "_MOST_BYTES", 3 * WIRE["pagecache"].itemsize)
    records.add(some("pagecache", [1, 2]))
    records.add(some("pagecache", [3]))
    assert not records.is_full
    records.add(some("pagecache", [4]))
    assert records.is_full
    records.write()
    assert not records.is_full


def test_samples_of_stacks_become_rows_while_their_processes_exist(
    records: BulkRecords, sink: Sink, stacks: Numbers
) -> None:
    records.add(some("code_sample", [8]))
    assert (sink.batches, stacks.asked) == ([("code_samples", [8])], [[8]])


def test_records_of_other_streams_are_left_out(records: BulkRecords, sink: Sink) -> None:
    """Kills, names and candidates have ways of their own."""
    for stream in ("oom", "candidate", "task", "inode", "cgroup"):
        records.add(some(stream, [1]))
    records.write()
    assert sink.batches == []
