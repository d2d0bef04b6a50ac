"""From paths to the answer: raw traces, datasets and URLs give the same one."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.recorded import TRACES
from support.storing.object_store import ObjectStore, object_store

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TraceError, TracerError, UsageError
from tracer.fleet.dataset import host_ranges
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.store import Store
from tracer.fleet.reduction.fleet_run import fleet

from .conftest import CopyTraces

NAMES = ("cow", "sharedbuffers", "throttle")


@pytest.fixture
def traces(copy_traces: CopyTraces) -> Path:
    return copy_traces(*NAMES)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Return the answer of the examples."""
    return answer(*(TRACES / name for name in NAMES))


@pytest.fixture(scope="module")
def dataset_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "dataset"
    dataset_of(path, *(TRACES / name for name in NAMES))
    return path


@pytest.fixture
def dataset(dataset_of_all: Path, tmp_path: Path) -> Path:
    """Return a dataset of the examples, which the test may change."""
    return Path(shutil.copytree(dataset_of_all, tmp_path / "dataset"))


@pytest.fixture
def memory() -> Iterator[type[ObjectStore]]:
    with object_store() as kind:
        yield kind


def answer(*paths: str | Path) -> dict[str, Any]:
    return fleet([str(path) for path in paths], workers=1).to_dict()


def dataset_of(address: str | Path, *traces: Path) -> Store:
    store = Store(str(address))
    appender = Appender(store, is_raw=False)
    for path in traces:
        appender.append(AnalysedTrace(path))
    return store


def test_dataset_gives_the_answer_of_its_traces(expected: dict[str, Any], dataset: Path) -> None:
    assert (expected["traces"], len(expected["kills"])) == (3, 2)
    assert answer(dataset) == expected
    assert compact(Store(str(dataset))) > 0
    assert answer(dataset) == expected


def test_dataset_of_an_older_version_is_answered_by_what_it_has(
    expected: dict[str, Any], dataset: Path
) -> None:
    def throttled(answered: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any]
        (found,) = (one for one in answered["workloads"] if "throttle" in one["workload"])
        return found

    assert throttled(expected)["held_back_by"] == ["throttled"]
    for path in dataset.glob("lives/**/*.parquet"):
        rows = pq.read_table(path)
        added = ["state", "lost_share", "work", "peak_with_swap_bytes", "comfortable_bytes"]
        added += ["killed_below_bytes", "survives_from_bytes", "reads_nothing_from_bytes"]
        pq.write_table(rows.drop_columns(added), path)
    older = throttled(answer(dataset))
    assert (older["held_back_runs"], older["held_back_by"], older["least_limit_bytes"]) == (0, [], None)
    assert older["largest_need_bytes"] == older["peak_unreclaimable_bytes"]["max"]


def test_traces_and_datasets_that_have_the_same_count_once(
    expected: dict[str, Any], traces: Path, tmp_path: Path
) -> None:
    dataset_of(tmp_path / "one", traces / "cow")
    dataset_of(tmp_path / "two", traces / "cow", traces / "throttle")
    assert answer(traces, tmp_path / "one", tmp_path / "two") == expected
    assert answer(traces / "sharedbuffers", tmp_path / "one", tmp_path / "two") == expected


def test_parts_of_a_dataset_give_the_same_answer(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = json.loads((traces / "throttle/meta.json").read_text())
    renamed = meta | {"host_name": "node-7", "boot_id": "00000000-0000-4000-8000-000000000007"}
    (traces / "throttle/meta.json").write_text(json.dumps(renamed))
    expected = answer(traces)
    assert len(expected["hosts"]) >= 2
    dataset_of(tmp_path / "dataset", *traces.iterdir())
    monkeypatch.setattr(
        "tracer.fleet.reduction.fleet_run.host_ranges",
        lambda address, tables, **more: host_ranges.host_ranges(address, tables, part_bytes=1, **more),
    )
    assert answer(tmp_path / "dataset") == expected
    assert answer(tmp_path / "dataset", traces) == expected


def test_host_that_is_renamed_during_a_boot_has_each_kill_once(
    expected: dict[str, Any], traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(traces / "cow", traces / "cow-again")
    meta = json.loads((traces / "cow-again/meta.json").read_text())
    (traces / "cow-again/meta.json").write_text(json.dumps(meta | {"host_name": "zone-web-7"}))
    renamed = answer(traces)
    assert renamed["traces"] == expected["traces"] + 1
    assert sum(one["count"] for one in renamed["kills"]) == sum(one["count"] for one in expected["kills"])
    dataset_of(tmp_path / "one", traces / "cow")
    assert answer(traces, tmp_path / "one") == renamed
    dataset_of(tmp_path / "dataset", *traces.iterdir())
    monkeypatch.setattr(
        "tracer.fleet.reduction.fleet_run.host_ranges",
        lambda address, tables, **more: host_ranges.host_ranges(address, tables, part_bytes=1, **more),
    )
    assert answer(tmp_path / "dataset") == renamed


def test_copies_of_a_trace_without_boot_id_count_once(copy_traces: CopyTraces, tmp_path: Path) -> None:
    traces = copy_traces("cow")
    meta = json.loads((traces / "cow/meta.json").read_text())
    (traces / "cow/meta.json").write_text(json.dumps(meta | {"boot_id": None}))
    expected = answer(traces)
    dataset_of(tmp_path / "dataset", traces / "cow")
    shutil.copytree(traces / "cow", traces / "cow-again")
    assert answer(traces) == expected
    assert answer(traces, tmp_path / "dataset") == expected


def test_traces_and_datasets_behind_a_url_give_the_same_answer(
    expected: dict[str, Any], traces: Path, tmp_path: Path, memory: type[ObjectStore]
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in traces.rglob("*"):
            if file.is_file():
                archive.write(file, f"hosts/{file.relative_to(traces)}")
    assert answer(f"zip://::{tmp_path}/all.zip") == expected
    dataset_of("memory://oom/dataset", *traces.iterdir())
    assert memory.objects()
    assert answer("memory://oom/dataset") == expected
    assert answer("memory://oom") == expected


def test_damaged_file_of_a_dataset_is_left_out(expected: dict[str, Any], dataset: Path) -> None:
    damaged = next((dataset / "evictors").rglob("*.parquet"))
    damaged.write_bytes(b"PAR1")
    found = answer(dataset)
    (broken,) = found["broken"]
    assert broken["path"] == str(damaged)
    assert "\n" not in broken["why"]
    assert found["kills"] == expected["kills"]
    assert found["workloads"] == expected["workloads"]
    assert sum(one["evicted_bytes"] for one in found["evictors"]) < sum(
        one["evicted_bytes"] for one in expected["evictors"]
    )


@pytest.mark.parametrize("is_compacted", [False, True])
def test_damaged_list_of_traces_costs_its_traces(dataset: Path, tmp_path: Path, is_compacted: bool) -> None:
    damaged = next((dataset / "sources").rglob("*.parquet"))
    damaged.write_bytes(b"PAR1")
    if is_compacted:
        damaged = damaged.rename(damaged.with_name(f"many-{16 * 'a'}.parquet"))
    found = answer(dataset)
    (broken,) = found["broken"]
    assert broken["path"] == str(damaged)
    without = tmp_path / "without"
    shutil.copytree(dataset, without)
    (without / damaged.relative_to(dataset)).unlink()
    assert found["traces"] == len(NAMES) - 1
    assert {**found, "broken": []} == answer(without)


def test_dataset_that_is_compacted_meanwhile_is_an_error(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_compacted(address: str, tables: Any, **more: Any) -> list[host_ranges.HostRange]:
        found = host_ranges.host_ranges(address, tables, **more)
        shutil.rmtree(dataset / "lives")
        return found

    monkeypatch.setattr("tracer.fleet.reduction.fleet_run.host_ranges", then_compacted)
    with pytest.raises(TracerError, match="open the dataset again"):
        answer(dataset)


def test_folder_that_is_no_dataset_is_broken(copy_traces: CopyTraces, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/dataset.json").write_text('{"format": "of somebody else"}')
    found = answer(copy_traces("cow"), tmp_path / "other")
    (broken,) = found["broken"]
    assert broken["path"] == str(tmp_path / "other")
    with pytest.raises(TraceError, match="no trace can be read: "):
        answer(tmp_path / "other")


def test_path_without_a_trace_beside_others_is_listed(copy_traces: CopyTraces, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = answer(copy_traces("cow"), tmp_path / "empty")
    assert found["broken"] == [
        {
            "path": str(tmp_path / "empty"),
            "why": "there is no trace in it, and no dataset with one",
            "is_partial": False,
        }
    ]


def test_dataset_without_a_trace_is_an_error(tmp_path: Path) -> None:
    dataset_of(tmp_path / "dataset")
    with pytest.raises(TraceError, match="there is no trace in it"):
        answer(tmp_path)


def test_password_of_a_url_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        answer(f"nosuch://me:secret@{tmp_path}")
    assert "secret" not in str(error.value)


def test_pipe_in_place_of_meta_json_does_not_hold_up_the_answer(copy_traces: CopyTraces) -> None:
    folder = copy_traces("anon")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/meta.json")
    found = fleet([str(folder)], workers=1)
    assert found.traces == 1
    (broken,) = found.broken
    assert broken.path.endswith("/pipe") and "a pipe" in broken.why


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("kills", "time", pa.array(["x"])),
        ("kills", "time", pa.nulls(1, pa.timestamp("ns", "UTC"))),
        ("lives", "workload", pa.nulls(1, pa.string())),
    ],
)
def test_file_with_rows_that_nobody_wrote_is_left_out(
    expected: dict[str, Any], dataset: Path, table: str, column: str, value: pa.Array
) -> None:
    file = min((dataset / table).glob("*/*/*.parquet"))
    rows = pq.read_table(file)
    place = rows.column_names.index(column)
    cells = pa.chunked_array([value] * rows.num_rows)
    pq.write_table(rows.set_column(place, column, cells), file)
    found = answer(dataset)
    (broken,) = found["broken"]
    assert f"cannot read {file}: " in broken["why"] and "bug" not in broken["why"]
    assert [host["host"] for host in found["hosts"]] == [host["host"] for host in expected["hosts"]]


def test_source_without_a_host_is_left_out_and_no_bug(dataset: Path) -> None:
    file = min((dataset / "sources").glob("*/*/*.parquet"))
    rows = pq.read_table(file)
    pq.write_table(
        rows.set_column(rows.column_names.index("host"), "host", pa.array([None], pa.string())), file
    )
    found = answer(dataset)
    (broken,) = found["broken"]
    assert broken["path"] == str(file)
    assert "host is null in it: restore it" in broken["why"]
    assert found["traces"] == len(NAMES) - 1


def test_names_that_are_not_utf8_are_escaped(copy_traces: CopyTraces) -> None:
    folder = copy_traces("anon")
    trace = (folder / "anon").rename(folder / os.fsdecode(b"an\xffon"))
    meta = json.loads((trace / "meta.json").read_text())
    (trace / "meta.json").write_text(json.dumps(meta | {"host_name": "no\udcffde"}))
    (host,) = answer(folder)["hosts"]
    assert host["host"] == r"no\udcffde"
