"""`memcg-tracer record` as a user runs it, with checks that it left nothing behind."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy, own_path
from tracer.kernel.cgroups.containers import EPHEMERAL_PREFIX
from tracer.kernel.cgroups.ephemeral import remove

_MARK = "MEMCG_TRACER_TEST_RECORDING"


def kernel_state() -> frozenset[str]:
    """Return the things that a tracer could leave behind, except cgroups and processes."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = ("tracefs", "debugfs", "bpf")
    state = {f"mount {left.split()[4]}" for left, right in mounts if right.split()[0] in kinds}
    state |= {f"pin {pin}" for pin in Path("/sys/fs/bpf").glob("*")}
    counting = Path("/proc/sys/kernel/bpf_stats_enabled")
    return frozenset(state | ({f"stats {counting.read_text()}"} if counting.exists() else set()))


class Recording(Recorder):
    """A recorder whose processes are found by their environment, even in other sessions."""

    def __init__(
        self, folder: Path, *options: str | Path, env: dict[str, str] | None = None, **how: Any
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.left_before = kernel_state()
        super().__init__(folder, *options, env={**os.environ, _MARK: self.mark, **(env or {})}, **how)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for cgroup in self.cgroups():
            remove(cgroup)

    @property
    def status(self) -> int:
        return self.process.returncode

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.path / "meta.json").read_text())
        return meta

    def cgroups(self) -> list[Path]:
        """Return the cgroups that the recorder made."""
        hierarchy = memory_hierarchy()
        parents = {hierarchy.mount, hierarchy.directory(own_path(hierarchy))}
        return [made for parent in parents for made in parent.glob(f"{EPHEMERAL_PREFIX}{self.process.pid}-*")]

    def processes(self) -> list[int]:
        """Return the processes that still run."""
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._is_ours(entry)]

    def _is_ours(self, entry: Path) -> bool:
        try:
            return f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def assert_refused(self, status: int, *words: str) -> None:
        """Assert that it ended with this status and one line with these words, and printed no path."""
        self.end()
        assert (self.process.returncode, self.stdout) == (status, ""), self.stderr
        *before, last = self.stderr.splitlines()
        assert last.startswith("memcg-tracer: error: "), self.stderr
        assert not [line for line in before if "error" in line or "Traceback" in line], self.stderr
        assert last.count("memcg-tracer doctor") <= 1
        for word in words:
            assert word in last
        self.assert_nothing_left()

    def assert_ended(self, status: int, end_reason: str) -> None:
        """Assert that it ended with this status and a complete trace, and printed the trace's path last."""
        self.end()
        assert self.process.returncode == status, self.stderr
        assert self.stdout.splitlines()[-1] == str(self.path)
        assert "error" not in self.stderr
        self.assert_trace(end_reason)
        self.assert_nothing_left()

    def assert_trace(self, end_reason: str) -> None:
        """Assert that the trace has this end reason, and that every table of it can be read."""
        trace = tracer.open(self.path)
        assert self.meta["end_reason"] == end_reason
        for table in ("charge", "pagecache", "reclaim", "oom", "samples", "loss"):
            assert getattr(trace, table) is not None
        assert (self.path.stat().st_mode & 0o777) == 0o700

    def assert_nothing_left(self) -> None:
        assert self.processes() == []
        assert self.cgroups() == []
        assert kernel_state() <= self.left_before


StartRecording = Callable[..., Recording]


@pytest.fixture
def start_recording(tmp_path: Path) -> Iterator[StartRecording]:
    """Return `start_recording(*options, **how)`, which starts a `Recording` in `tmp_path`."""
    with ExitStack() as started:
        yield lambda *options, **how: started.enter_context(Recording(tmp_path, *options, **how))
