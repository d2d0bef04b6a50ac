"""Files of a dataset at a place that fails for a moment."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.storing.folder_server import FolderServer

from tracer.errors import TracerError
from tracer.fleet.dataset.store import Store

FILE = "/top/kills/1.parquet"


def put_rows(folders: type[FolderServer]) -> pa.Table:
    rows = pa.table({"x": list(range(1000))})
    content = io.BytesIO()
    pq.write_table(rows, content, row_group_size=100)
    folders.files[FILE] = content.getvalue()
    return rows


def test_file_is_read_on_after_a_failure_that_passes(folders: type[FolderServer]) -> None:
    rows = put_rows(folders)
    with Store("folders://top").open("kills/1.parquet") as content:
        parquet = pq.ParquetFile(content)
        first = parquet.read_row_groups([0])
        folders.reads[FILE] += [ConnectionResetError(), TimeoutError()]
        rest = parquet.read_row_groups(list(range(1, 10)))
    assert folders.reads[FILE] == []
    assert pa.concat_tables([first, rest]) == rows


def test_failure_that_stays_is_not_blamed_on_the_file(folders: type[FolderServer]) -> None:
    put_rows(folders)
    folders.reads[FILE] = [ConnectionResetError("no answer")] * 6
    with (
        pytest.raises(TracerError, match=r"^cannot use folders://top/kills/1.parquet: no answer$"),
        Store("folders://top").open("kills/1.parquet") as content,
    ):
        pq.ParquetFile(content)


def test_file_that_is_gone_was_compacted_and_a_damaged_one_is_to_be_restored(
    folders: type[FolderServer],
) -> None:
    put_rows(folders)
    folders.files["/top/kills/2.parquet"] = b"rows"
    place = Store("folders://top")
    with (
        pytest.raises(TracerError, match="written together") as error,
        place.open("kills/none.parquet") as content,
    ):
        pq.ParquetFile(content)
    assert isinstance(error.value.__cause__, FileNotFoundError)
    with (
        pytest.raises(TracerError, match="restore it from a copy"),
        place.open("kills/2.parquet") as content,
    ):
        pq.ParquetFile(content)
