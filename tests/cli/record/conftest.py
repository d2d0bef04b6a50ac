"""`memcg-tracer record` as a user runs it, and a look at what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.kernel.cgroupfs import memory_hierarchy, own_path
from tracer.kernel.ephemeral import NAME_PREFIX, remove

WITHIN_S = 60.0
_MARK = "MEMCG_TRACER_TEST_RECORDING"


def kernel_state() -> frozenset[str]:
    """What a tracer may leave behind beside cgroups and processes."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = ("tracefs", "debugfs", "bpf")
    state = {f"mount {left.split()[4]}" for left, right in mounts if right.split()[0] in kinds}
    state |= {f"pin {pin}" for pin in Path("/sys/fs/bpf").glob("*")}
    counting = Path("/proc/sys/kernel/bpf_stats_enabled")
    return frozenset(state | ({f"stats {counting.read_text()}"} if counting.exists() else set()))


@dataclass
class Recording:
    """A recorder that was started in `folder`; its trace goes to trace there, if not told otherwise."""

    folder: Path
    process: subprocess.Popen[bytes]
    mark: str
    left_before: frozenset[str] = field(default_factory=kernel_state)
    stdout: str = ""
    stderr: str = ""

    @property
    def path(self) -> Path:
        return self.folder / "trace"

    @property
    def ready_file(self) -> Path:
        return self.folder / "ready"

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it did not come to that: {self.end().stderr}")
            time.sleep(0.002)

    def wait_until_ready(self) -> Recording:
        self.wait_for(self.ready_file.exists)
        return self

    def end(self) -> Recording:
        """Wait for its end, which must be near."""
        if not self.stderr:
            stdout, stderr = self.process.communicate(timeout=WITHIN_S)
            self.stdout, self.stderr = (os.fsdecode(text or b"") for text in (stdout, stderr))
        return self

    @property
    def status(self) -> int:
        return self.process.returncode

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.path / "meta.json").read_text())
        return meta

    def cgroups(self) -> list[Path]:
        """The cgroups that it made."""
        hierarchy = memory_hierarchy()
        parents = {hierarchy.mount, hierarchy.directory(own_path(hierarchy))}
        return [made for parent in parents for made in parent.glob(f"{NAME_PREFIX}{self.process.pid}-*")]

    def processes(self) -> list[int]:
        """Those of its processes that still run."""
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._is_ours(entry)]

    def _is_ours(self, entry: Path) -> bool:
        try:
            return f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def assert_refused(self, status: int, *words: str) -> None:
        """It ended with that status, one line that has these words, and no path."""
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
        """It ended with that status and a whole trace, whose path it printed last."""
        self.end()
        assert self.process.returncode == status, self.stderr
        assert self.stdout.splitlines()[-1] == str(self.path)
        assert "error" not in self.stderr
        self.assert_trace(end_reason)
        self.assert_nothing_left()

    def assert_trace(self, end_reason: str) -> None:
        """The trace was ended for that reason, and every table of it can be read."""
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
    """`start_recording(*options, wrapper=(), launch=..., env={}, output=True, **popen)`, in `tmp_path`."""
    started: list[Recording] = []

    def start(
        *options: str | Path,
        wrapper: Sequence[str] = (),
        launch: Sequence[str] = ("-m", "tracer"),
        env: dict[str, str] | None = None,
        output: bool = True,
        **popen: Any,
    ) -> Recording:
        mark = uuid.uuid4().hex
        places = ["-o", str(tmp_path / "trace")] if output else []
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*wrapper, sys.executable, *launch, "record", *places, *options],
            env={**os.environ, _MARK: mark, **(env or {})},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen},
        )
        started.append(Recording(tmp_path, process, mark))
        return started[-1]

    yield start
    for recording in started:
        recording.process.kill()
        recording.process.wait()
        for cgroup in recording.cgroups():
            remove(cgroup)
        for stream in (recording.process.stdout, recording.process.stderr):
            if stream is not None:
                stream.close()
