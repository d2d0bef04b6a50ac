"""Many traces of many machines: a summary of each, and what follows from all of them.

A room imports only from rooms above it in this list:

    summary — a trace in a few rows: its kills, the lives of its cgroups, and who evicted whom
    sizing — which limit a workload should have, by our rule, the VPA's and KRR's
    pushing — finished traces to where those of many machines are collected
    dataset — the summaries and the tables of many traces as Parquet files, at any URL
    reduction — from many traces and datasets to one answer, with Dask, or to one dataset
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.fleet.dataset.lazy_frames import Dataset


def open(url: str) -> Dataset:
    """Return the summary tables of the dataset at an fsspec URL or a path, as lazy Dask DataFrames.

    They are `sources`, `kills`, `sigkills`, `lives`, `evictors` and `timeline`: `open(url).kills.compute()`
    gives all kills as a pandas DataFrame. docs/dataset.md lists the columns.

    Raises TracerError if there is no dataset, or if Dask or fsspec is not installed.
    """
    from tracer.fleet.dataset.lazy_frames import Dataset  # noqa: PLC0415  it imports pandas

    return Dataset(url)
