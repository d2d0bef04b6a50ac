"""A dataset of many traces: Parquet files by table, day and host, at any URL of fsspec.

A module imports only from modules above it in this list:

    store — the place of a dataset
    listing — the names of its files, the traces that it has, and the files that hold them
    spooled — a Parquet file that is written here first, and is then put to its place at once
    appending — a trace into a dataset: all of it, or nothing that a reader sees
    compaction — many small files of a day into one
    host_ranges — the rows of a dataset in parts that fit in memory, without what several traces have
    lazy_frames — the summary tables as DataFrames of Dask
"""
