"""`export --to csv` and `--to parquet`: read by DuckDB and by Polars, with any names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner

import tracer
from tracer.cli.verbs import export
from tracer.errors import TracerError, UsageError
from tracer.schema import TABLES

EXAMPLE = Path(__file__).parents[3] / "traces" / "page-cache"
HOSTILE = "=cmd|' /C calc'!A0\x1b[31m\n,\""
SHOWN = "'=cmd|' /C calc'!A0\\x1b[31m\\n,\""
FORMS = ("csv", "parquet")

WriteTrace = Callable[..., Path]


@pytest.fixture
def exported(run: CliRunner, tmp_path: Path) -> Callable[..., Path]:
    def write(trace: Path, form: str, *arguments: str) -> Path:
        output = tmp_path / form
        words = [str(trace), "--to", form, "-o", str(output), *arguments]
        result = run.invoke(export.command, words, catch_exceptions=False)
        assert result.stdout == f"{output}\n"
        return output

    return write


Exported = Callable[..., Path]


def by_duckdb(file: Path) -> list[dict[str, Any]]:
    found = duckdb.execute(f"select * from '{file}'")
    columns = [name for name, *_ in found.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def by_polars(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return pl.read_parquet(file).to_dicts()
    return pl.read_csv(file, try_parse_dates=True, infer_schema_length=None).to_dicts()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("read", [by_duckdb, by_polars])
def test_tables_are_read_by_other_tools(exported: Exported, form: str, read: Any) -> None:
    folder, trace = exported(EXAMPLE, form), tracer.open(EXAMPLE)
    assert {path.name for path in folder.iterdir()} == {f"{table}.{form}" for table in TABLES}
    charge = read(folder / f"charge.{form}")
    assert len(charge) == len(trace.charge)
    assert sum(row["bytes"] for row in charge) == trace.charge["bytes"].sum()
    names = trace.with_names(trace.charge)
    assert {row["cgroup"] for row in charge} == {*names["cgroup"]}
    assert {row["comm"] for row in charge} - {None} == {*names["comm"].dropna()}
    (kill,) = read(folder / f"oom.{form}")
    assert kill["limit_bytes"] == 100 << 20
    assert kill["is_limited"] is True
    assert kill["time"].year == 2026
    assert kill["limit_owner_cgroup"] == kill["cgroup"] == "/memcg-tracer-32091-lab-page-cache"
    assert kill["order"] is None


@pytest.mark.parametrize("form", FORMS)
def test_evicted_bytes_by_file_are_a_query(exported: Exported, form: str) -> None:
    """Tables with names need no join."""
    folder = exported(EXAMPLE, form)
    found = duckdb.execute(
        f"select file, sum(nr_pages) from '{folder}/pagecache.{form}' "
        "where op = 'delete' and starts_with(cause, 'reclaim') group by file"
    ).fetchall()
    evicted = tracer.open(EXAMPLE).evictions(by="file")
    assert dict(found) == {
        row["path"]: row["evicted_bytes"] // 4096
        for row in evicted.to_dict("records")
        if row["evicted_bytes"]
    }


def test_hostile_names_are_no_formula_in_csv_and_exact_in_parquet(
    exported: Exported, write_trace: WriteTrace
) -> None:
    path = write_trace(comm=HOSTILE, cgroup=f"/{HOSTILE}", container=HOSTILE, file=HOSTILE)
    for name, column in (("charge", "comm"), ("charge", "container"), ("pagecache", "file"), ("oom", "comm")):
        csv, parquet = (exported(path, form, "-f") / f"{name}.{form}" for form in FORMS)
        for read in (by_duckdb, by_polars):
            assert {row[column] for row in read(csv)} == {SHOWN}
            assert {row[column] for row in read(parquet)} == {HOSTILE}
        assert b"\x1b" not in csv.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_a_cgroup_leave_other_rows_out(
    exported: Exported, write_trace: WriteTrace, form: str
) -> None:
    folder = exported(write_trace(), form, "-c", "/quiet")
    assert by_polars(folder / f"charge.{form}") == []
    assert [row["path"] for row in by_polars(folder / f"cgroups.{form}")] == ["/quiet"]


def test_directory_formats_refuse_stdout_kills_and_existing_outputs(
    run: CliRunner, exported: Exported, tmp_path: Path
) -> None:
    def refused(*arguments: str) -> TracerError:
        result = run.invoke(export.command, [str(EXAMPLE), "--to", "csv", *arguments])
        assert isinstance(result.exception, TracerError)
        assert result.stdout == ""
        return result.exception

    assert isinstance(refused("-o", "-"), UsageError)
    assert isinstance(refused("-o", str(tmp_path / "new"), "--kill", "1"), UsageError)
    assert "name it without .csv" in str(refused("-o", str(tmp_path / "new.csv")))
    folder = exported(EXAMPLE, "csv")
    assert "-f" in str(refused("-o", str(folder)))
    (folder / "notes").touch()
    assert "notes" in str(refused("-o", str(folder), "-f"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("new")] == []
