"""Traces into a dataset with one process and with two: the same files, whatever dies meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.parallel.own_children import OwnChildren
from synthetic.fleets.dying_target import DyingTarget

from tracer.fleet.dataset.appending import Appended, Appender
from tracer.fleet.dataset.store import Store
from tracer.fleet.pushing.target import Target, TargetError
from tracer.fleet.reduction.additions import Outcome, add_all
from tracer.fleet.reduction.fetched_trace import meta_of
from tracer.fleet.reduction.inputs import Place
from tracer.trace.meta import trace_id

EXAMPLES = Path(__file__).parents[3] / "traces"
CopyTraces = Callable[..., Path]


def places_in(folder: Path) -> list[Place]:
    return [Place(str(path), path.name) for path in sorted(folder.iterdir())]


def added(
    address: Path, traces: Sequence[Place], workers: int, *, is_raw: bool = False
) -> list[tuple[str, Outcome]]:
    """Return the name of each trace, and what became of it."""
    children = OwnChildren()
    outcomes: list[tuple[str, Outcome]] = []
    counts: list[tuple[int, int]] = []
    add_all(
        Appender(Store(str(address)), is_raw=is_raw),
        traces,
        workers,
        report=lambda place, outcome: outcomes.append((place.shown, outcome)),
        progress=lambda *count: counts.append(count),
    )
    assert counts[-1] == (len(traces), len(traces))
    assert children.new() == []
    return outcomes


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dataset_is_the_same_byte_for_byte_with_two_processes(
    copy_traces: CopyTraces, tmp_path: Path
) -> None:
    folder = copy_traces("anon", "fork", "sharedbuffers", "thrash")
    shutil.copytree(folder / "fork", folder / "zz-copy-of-fork")
    shutil.copytree(folder / "fork", folder / "broken")
    (folder / "broken/meta.json").write_text("{")
    shutil.copytree(EXAMPLES / "shmem", folder / "torn")
    (folder / "torn/oom.parquet").write_bytes(b"PAR1")
    one, two = (
        added(tmp_path / f"by-{workers}", places_in(folder), workers, is_raw=True) for workers in (1, 2)
    )
    assert one == two
    assert [name for name, outcome in two if isinstance(outcome, str)] == ["broken", "torn"]
    assert dict(two)["zz-copy-of-fork"] == Appended(one[2][1].trace_id, None, 0)  # type: ignore[union-attr]
    assert files_of(tmp_path / "by-1") == files_of(tmp_path / "by-2")


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("workers", [1, 2])
def test_trace_that_is_there_is_not_read_again(copy_traces: CopyTraces, tmp_path: Path, workers: int) -> None:
    """An export of each hour takes what is new: else it would fetch a whole store each time."""
    folder = copy_traces("anon", "fork", "shmem")
    behind = Target(f"file://{folder}")
    places = [Place(name, name, behind, f"file://{folder}/{name}") for name in ("anon", "fork", "shmem")]
    added(tmp_path / "fleet", places[:2], workers)
    for name in ("anon", "fork"):
        (folder / name / "charge.parquet").unlink()
        (folder / name / "charge.parquet").symlink_to("nowhere")  # it cannot be fetched
    again = added(tmp_path / "fleet", places, workers)
    assert again[:2] == [(place.shown, Appended(trace_id(meta_of(place)), None, 0)) for place in places[:2]]
    with_raw = dict(added(tmp_path / "fleet", places, workers, is_raw=True))
    for outcome in (again[2][1], with_raw["shmem"]):
        assert isinstance(outcome, Appended) and outcome.written_bytes
    assert "cannot use" in str(with_raw["anon"])


def test_damaged_trace_at_a_url_is_named_by_the_url(copy_traces: CopyTraces, tmp_path: Path) -> None:
    folder = copy_traces("anon")
    (folder / "anon/meta.json").write_text("{")
    url = f"file://{folder}/anon"
    place = Place("anon", url, Target(f"file://{folder}"), url)
    [(_, outcome)] = added(tmp_path / "fleet", [place], 1)
    assert str(outcome).startswith(f"{url}/meta.json is damaged")


@pytest.mark.usefixtures("forked_workers")
def test_process_that_is_killed_in_the_middle_changes_nothing(
    copy_traces: CopyTraces, tmp_path: Path
) -> None:
    folder = copy_traces("anon", "fork", "shmem")
    whole = added(tmp_path / "whole", places_in(folder), 1)
    target = DyingTarget(f"file://{folder}", tmp_path / "once")
    dying = Place("fork", "fork", target, f"file://{folder}/fork")
    first, _, last = places_in(folder)
    assert added(tmp_path / "fleet", [first, dying, last], 2) == whole
    assert (tmp_path / "once").exists()
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "fleet")


@pytest.mark.usefixtures("forked_workers")
def test_trace_that_kills_each_process_is_left_out(copy_traces: CopyTraces, tmp_path: Path) -> None:
    folder = copy_traces("anon", "fork", "shmem")
    target = DyingTarget(f"file://{folder}", None)
    dying = Place("fork", "fork", target, f"file://{folder}/fork")
    first, _, last = places_in(folder)
    outcomes = dict(added(tmp_path / "fleet", [first, dying, last], 2))
    assert "died 3 times" in str(outcomes["fork"])
    assert [name for name, outcome in outcomes.items() if isinstance(outcome, Appended)] == ["anon", "shmem"]


@pytest.mark.usefixtures("forked_workers")
def test_dataset_that_cannot_be_used_ends_the_work(copy_traces: CopyTraces, tmp_path: Path) -> None:
    children = OwnChildren()
    folder = copy_traces("anon", "fork")
    appender = Appender(Store(str(tmp_path / "fleet")), is_raw=False)
    (tmp_path / "fleet/kills").touch()
    with pytest.raises(TargetError, match="cannot use"):
        add_all(appender, places_in(folder), 2, report=lambda *_: None)
    assert children.new() == []
