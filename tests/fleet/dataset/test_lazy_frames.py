"""The tables of a dataset as DataFrames of Dask."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.storing.dataset_rows import rows_of

import tracer
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.summaries import SUMMARIES

pytestmark = pytest.mark.usefixtures("once")


@pytest.fixture
def fleet(tmp_path: Path, examples: list[AnalysedTrace]) -> str:
    address = str(tmp_path / "fleet")
    appender = Appender(Store(address), is_raw=False)
    for trace in examples:
        appender.append(trace)
    return address


def computed(lazy: Any) -> Any:
    return lazy.compute(scheduler="synchronous")


def test_frames_are_lazy_and_have_all_columns_and_rows(fleet: str) -> None:
    dataset = tracer.fleet.open(fleet)
    for table, schema in SUMMARIES.items():
        lazy = getattr(dataset, table)
        assert list(lazy.columns) == schema.names
        frame = computed(lazy)
        pd.testing.assert_series_equal(frame.dtypes, lazy.dtypes)
        assert len(frame) == len(rows_of(fleet)[table])
    assert "kills" in repr(dataset)


def test_values_have_types_that_pandas_computes_with(fleet: str) -> None:
    dataset = tracer.fleet.open(f"file://{fleet}")
    kills = dataset.kills
    counts = kills[kills["date"] >= datetime.date(2026, 11, 25)].groupby("cause")["victims"].sum()
    assert computed(counts).to_dict() == {"anon_growth": 1, "shmem": 3}
    frame = computed(kills)
    assert frame["time"].dtype == "datetime64[ns, UTC]"
    assert frame["limit_bytes"].dtype == "Int64" and frame["is_limited"].dtype == "boolean"
    assert frame["min_limit_low_bytes"].isna().any() or frame["min_limit_low_bytes"].notna().all()
    assert frame.set_index("time").resample("1h")["victims"].sum().sum() == 4


def test_files_of_an_older_version_are_read_with_nulls(fleet: str) -> None:
    (path, *_) = sorted(Path(fleet).glob("lives/**/*.parquet"))
    rows = pq.read_table(path)
    version = rows.column_names.index("summary_version")
    older = rows.drop_columns(["image", "peak_working_set_bytes"]).append_column(
        "of_another_version", rows["workload"]
    )
    older = older.set_column(
        version, "summary_version", rows["summary_version"].combine_chunks().cast("int64")
    )
    pq.write_table(older, path)
    lives = computed(tracer.fleet.open(fleet).lives)
    assert len(lives) == 3 and list(lives.columns) == SUMMARIES["lives"].names
    assert lives["peak_working_set_bytes"].isna().sum() == rows.num_rows


def test_dataset_without_traces_has_empty_frames(tmp_path: Path) -> None:
    Appender(Store(str(tmp_path / "fleet")), is_raw=False)
    frame = computed(tracer.fleet.open(str(tmp_path / "fleet")).kills)
    assert frame.empty and list(frame.columns) == SUMMARIES["kills"].names


def test_place_without_dataset_is_a_plain_error(tmp_path: Path) -> None:
    for address in (str(tmp_path), str(tmp_path / "nothing"), "memory://nothing"):
        with pytest.raises(TracerError, match="no dataset"):
            tracer.fleet.open(address)
