"""`export --to dataset`: many traces into one dataset, and its refusals."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.storing.object_store import object_store

import tracer.fleet
from tracer.cli.verbs import export
from tracer.errors import TracerError, UsageError

WriteTrace = Callable[..., Path]


@pytest.fixture
def exported(run: CliRunner) -> Callable[..., Result]:
    return lambda *arguments: run.invoke(export.command, [*map(str, arguments), "--to", "dataset"])


Exported = Callable[..., Result]


def kills(folder: Path) -> int:
    lazy: Any = tracer.fleet.open(str(folder)).kills
    return len(lazy.compute(scheduler="synchronous"))


def test_traces_below_a_directory_are_added_once(
    exported: Exported, write_trace: WriteTrace, tmp_path: Path
) -> None:
    spool, fleet = tmp_path / "spool", tmp_path / "fleet"
    (spool / "deep").mkdir(parents=True)
    write_trace("spool/one")
    write_trace("spool/deep/two", killed=False, container="web-1")
    result = exported(spool, spool / "one", "-o", fleet)
    assert (result.exit_code, result.stdout) == (0, f"{fleet}\n")
    assert "2 traces with 1 kill added" in result.stderr
    assert kills(fleet) == 1
    assert {path.name for path in (fleet / "raw").iterdir()} >= {"charge", "meta", "oom"}
    assert stat.S_IMODE(fleet.stat().st_mode) == 0o700
    again = exported(spool, "-o", fleet)
    assert again.stderr == "memcg-tracer: 2 traces there already\n"


def test_broken_traces_are_reported_and_the_others_added(
    exported: Exported, write_trace: WriteTrace, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    broken = write_trace("spool/a\x1b[31m")
    (broken / "meta.json").write_text("{")
    write_trace("spool/b")
    torn = write_trace("spool/c", size=50)
    (torn / "oom.parquet").write_bytes(b"PAR1")
    result = exported(spool, "-o", tmp_path / "fleet", "--no-raw")
    assert isinstance(result.exception, TracerError)
    assert str(result.exception) == "2 traces could not be added: see the lines above"
    assert result.stderr.count("warning: ") == 2 and "\x1b" not in result.stderr
    assert kills(tmp_path / "fleet") == 1
    assert not (tmp_path / "fleet/raw").exists()


def test_traces_behind_a_url_are_added(exported: Exported, write_trace: WriteTrace, tmp_path: Path) -> None:
    trace = write_trace("deep")
    with object_store() as store:
        for file in trace.iterdir():
            store().pipe_file(f"/spool/host/deep/{file.name}", file.read_bytes())
        result = exported("memory://spool", "-o", "memory://fleet", "--no-raw")
        assert (result.exit_code, result.stdout) == (0, "memory://fleet\n")
        lazy: Any = tracer.fleet.open("memory://fleet").sources
        (name,) = lazy.compute(scheduler="synchronous")["trace"]
        assert name == "deep"
        again = exported("memory://spool", trace, "-o", "memory://fleet", "--no-raw")
        assert again.stderr == "memcg-tracer: 2 traces there already\n"


def test_directory_without_traces_makes_no_dataset(exported: Exported, tmp_path: Path) -> None:
    """The spool of a host without a kill is exported each hour, as that of any other host."""
    (tmp_path / "empty").mkdir()
    result = exported(tmp_path / "empty", "-o", tmp_path / "fleet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"memcg-tracer: {tmp_path / 'empty'} has no traces\n"
    assert not (tmp_path / "fleet").exists()
    missing = exported(tmp_path / "nowhere", "-o", tmp_path / "fleet")
    assert "No such file" in str(missing.exception)


def test_dataset_is_not_added_to_another(exported: Exported, write_trace: WriteTrace, tmp_path: Path) -> None:
    exported(write_trace("one"), "-o", tmp_path / "fleet", "--no-raw")
    for place in (tmp_path / "fleet", f"file://{tmp_path}/fleet"):
        result = exported(place, "-o", tmp_path / "other")
        assert result.stderr.startswith(f"memcg-tracer: {place} has no traces, but a dataset")
    assert not (tmp_path / "other").exists()


def test_compaction_takes_no_trace_and_writes_few_files_together(
    exported: Exported, write_trace: WriteTrace, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet"
    for name, size in (("one", 40), ("two", 50), ("three", 60)):
        exported(write_trace(name, size=size), "-o", fleet, "--no-raw")
    assert len(list(fleet.glob("kills/**/*.parquet"))) == 3
    result = exported("-o", f"file://{fleet}", "--compact")
    assert "small files were written together" in result.stderr
    (path,) = fleet.glob("kills/**/*.parquet")
    assert len({*pq.read_table(path)["trace_id"].to_pylist()}) == 3
    assert kills(fleet) == 1  # these traces are copies of one recording but for the time at which they began


def test_compaction_of_a_place_without_a_dataset_is_an_error(exported: Exported, tmp_path: Path) -> None:
    result = exported("-o", tmp_path / "fleet", "--compact")
    assert isinstance(result.exception, TracerError)
    assert "is no dataset" in str(result.exception)
    assert not (tmp_path / "fleet").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "fleet"], "name a trace"),
        (["traces/page-cache", "-o", "-"], "writes a folder"),
        (["traces/page-cache", "-o", "fleet", "-c", "web"], "leave out -c"),
        (["traces/page-cache", "-o", "fleet", "-f"], "leave out -f"),
        (
            ["traces/page-cache", "-o", "fleet", "--kill", "1"],
            "--kill is for --to folded and --to pprof: leave it out",
        ),
    ],
)
def test_options_of_other_formats_are_refused(exported: Exported, arguments: list[str], words: str) -> None:
    result = exported(*arguments)
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "b", "--to", "csv", "-o", "x"], "takes one TRACE"),
        (["--to", "csv", "-o", "x"], "takes one TRACE"),
        (["a", "--to", "csv", "-o", "x", "--compact"], "--compact is for --to dataset"),
        (["a", "--to", "csv", "-o", "x", "--no-raw"], "--no-raw is for --to dataset"),
    ],
)
def test_other_formats_take_one_trace_and_no_options_of_datasets(
    run: CliRunner, arguments: list[str], words: str
) -> None:
    result = run.invoke(export.command, arguments)
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)


def test_place_that_is_no_dataset_is_refused_before_the_work(
    exported: Exported, write_trace: WriteTrace, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("kept")
    result = exported(write_trace(), "-o", tmp_path / "mine")
    assert isinstance(result.exception, TracerError)
    assert "other files" in str(result.exception)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
