"""A pipeline that cannot be made: it leaves nothing behind, and does not change an earlier trace."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tracer.capture import pipeline
from tracer.capture.learn import calibration
from tracer.capture.observer import Events
from tracer.capture.options import Options
from tracer.capture.pipeline import Pipeline
from tracer.capture.selection.cgroup_selection import CgroupSelection
from tracer.capture.session import first_meta
from tracer.errors import TraceError, TracerError
from tracer.kernel.btf import KnownTypes
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.process import bounded_call
from tracer.trace import meta
from tracer.trace.write.writer import TraceWriter
from tracer.wire.dtypes import WIRE

RING_BYTES = mmap.PAGESIZE
MEMFD = "rings-of-a-test"


class FakePrograms:
    """A stand-in for `Programs` up to the creation of a pipeline; its rings lie in a file."""

    def __init__(self) -> None:
        self.file = os.memfd_create(MEMFD)
        os.truncate(self.file, 1 << 20)  # no less than any map or ring
        self.no_ring: str | None = None
        self.cpus, self.accounts = 1, 64
        self.closed = 0
        self.rings = list(WIRE)
        self.types = KnownTypes({}, {}, {})

    def wait(self, _warn: object, _notice: object) -> None:
        """Return at once: the programs are compiled."""

    def lost(self) -> dict[str, int]:
        raise AssertionError("nothing is recorded")

    def map(self, _name: str) -> Any:
        return SimpleNamespace(fd=self.file, share=lambda: mmap.mmap(self.file, 1 << 20))

    def ring_fd(self, name: str) -> int:
        return 1 << 20 if name == self.no_ring else self.file  # no such descriptor

    def ring_bytes(self, _name: str) -> int:
        return RING_BYTES

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePrograms]:
    monkeypatch.setattr(calibration, "calibrate", lambda *_: {})
    monkeypatch.setattr(pipeline, "PageSums", lambda _: SimpleNamespace(close=lambda: None))
    made = FakePrograms()
    yield made
    os.close(made.file)


def make(programs: Any, output: Path, *, force: bool = False) -> Pipeline:
    hierarchy = Hierarchy(2, output.parent, "/")
    options = Options(output, force=force)
    return Pipeline(
        options,
        hierarchy,
        CgroupSelection(programs, hierarchy, None),
        programs=programs,
        events=cast(Events, SimpleNamespace(warn=None, notice=None)),
        open_sink=lambda: TraceWriter(output, first_meta(options, hierarchy), force=force),
        began_s=0.0,
    )


def mapped_rings() -> int:
    """Return the number of mappings of rings in this process: two for each ring."""
    return Path("/proc/self/maps").read_text().count(MEMFD)


def refuse_mounts() -> None:
    raise OSError("no mounts today")


def test_close_unmaps_the_rings_once(programs: FakePrograms, tmp_path: Path) -> None:
    """The rings are mapped before the close, which shows that the count afterwards is meaningful."""
    with closing(make(programs, tmp_path / "trace")):
        assert mapped_rings() == 2 * (len(WIRE) + 1) + len(("sampled", "samples", "task_times"))
    assert (mapped_rings(), programs.closed) == (0, 1)


@pytest.mark.parametrize("ring", WIRE)
def test_ring_that_cannot_be_mapped_leaves_nothing_behind(
    programs: FakePrograms, tmp_path: Path, ring: str
) -> None:
    programs.no_ring = ring
    with pytest.raises(TracerError, match="cannot map a BPF ring buffer"):
        make(programs, tmp_path / "trace")
    assert (mapped_rings(), programs.closed) == (0, 1)
    assert not (tmp_path / "trace").exists()


def test_failed_pipeline_leaves_the_earlier_trace(
    programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = meta.begin(command_line=["earlier"], cgroup_version=2, filters={}, probes={})
    TraceWriter(tmp_path / "trace", began, force=False).close("duration")
    monkeypatch.setattr(pipeline, "Mounts", refuse_mounts)
    with pytest.raises(OSError, match="no mounts today"):
        make(programs, tmp_path / "trace", force=True)
    assert (mapped_rings(), programs.closed) == (0, 1)
    kept = meta.read_meta(tmp_path / "trace")
    assert (kept["command_line"], kept["end_reason"]) == (["earlier"], "duration")


def test_output_that_is_a_file_raises_and_leaves_nothing_behind(
    programs: FakePrograms, tmp_path: Path
) -> None:
    (tmp_path / "trace").write_text("not a trace")
    with pytest.raises(TraceError, match="choose another place"):
        make(programs, tmp_path / "trace", force=True)
    assert (mapped_rings(), programs.closed) == (0, 1)


def test_silence_is_warned_of_once(
    programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    silent: list[str | None] = [None]
    monkeypatch.setattr(bounded_call, "first_silent", lambda: silent[-1])
    with closing(make(programs, tmp_path / "trace")) as made:
        made._events = cast(Events, SimpleNamespace(warn=warnings.append))
        made.report_news()
        assert warnings == []
        silent.append("/layers/a\udcff")
        made.report_news()
        made.report_news()
    (line,) = warnings
    assert line.startswith("/layers/a\\xff did not answer")
