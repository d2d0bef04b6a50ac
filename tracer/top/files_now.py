"""What the page cache of a cgroup has now, by file: read by a child, on demand and within a budget."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tracer.capture.contents.held import HeldFile
from tracer.kernel.process.children import argv_of_module, environment_of_modules
from tracer.units import duration
from tracer.watch.child import Child

_WITHIN_S: Final = 60.0
_REST: Final = 99.0
"""The time between two readings as a multiple of the time that one takes: a reading takes 1 % of a CPU."""


@dataclass(frozen=True)
class FilesNow:
    """The page cache of a cgroup and the cgroups below it, as it was at `read_ns` (CLOCK_MONOTONIC); None: it
    was not read yet. `usage_bytes` is the usage of the cgroup when that reading began; None: not known.

    There are so many `files`. `sizes` has inode_id -> bytes, and the bytes that must be written, of the
    largest, the largest first, and `named` the names of the first of these. `is_whole`: `sizes` has all of
    them. `percent` is the progress of a reading; None: no reading goes on. `error`: why the last one failed.
    """

    read_ns: int | None = None
    percent: int | None = None
    error: str = ""
    usage_bytes: int | None = None
    files: int = 0
    is_whole: bool = False
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    named: Mapping[int, HeldFile] = field(default_factory=dict)

    def of(self, inode_id: int) -> tuple[int | None, int | None]:
        """Return the size of a file, and what of it must be written; None: not known."""
        absent = 0 if self.is_whole else None
        return self.sizes.get(inode_id, (absent, absent))

    def words(self, now_ns: int) -> str:
        """Return the age of these sizes, and the progress of the next reading."""
        if self.read_ns is None and self.percent is None:
            return f"NOW is not known ({self.error})" if self.error else "NOW was not read yet"
        if self.read_ns is None:
            return f"reading what it has now, {self.percent} %"
        age = f"NOW is {duration(max(round((now_ns - self.read_ns) / 1e9), 1))} old"
        if self.percent is not None:
            return f"{age}, reading {self.percent} %"
        return f"{age} and cannot be read again ({self.error})" if self.error else f"{age} (r reads it again)"


_NOTHING: Final = FilesNow()


class FilesReader:
    """Reads the page cache of the cgroup that is looked at, in a child, so that the view goes on."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._cgroup_id: int | None = None
        self._found = _NOTHING
        self._usage_bytes: int | None = None
        self._began_s = 0.0
        self._due_s = -math.inf

    @property
    def is_reading(self) -> bool:
        return self._child is not None

    def of(self, cgroup_id: int) -> FilesNow:
        """Return what is known of a cgroup: of the one that was read last."""
        return self._found if cgroup_id == self._cgroup_id else _NOTHING

    def want(self, cgroup_id: int, usage_bytes: int | None, *, at_once: bool = False) -> None:
        """Read a cgroup, if another one was read, or if a repetition is within the budget or wanted now."""
        if cgroup_id != self._cgroup_id:
            self.end()
            self._cgroup_id, self._found, self._due_s = cgroup_id, _NOTHING, -math.inf
        now_s = time.monotonic()
        if self._child is not None or not (at_once or now_s >= self._due_s):
            return
        argv = argv_of_module("tracer.top.reading_files", str(cgroup_id))
        self._began_s = now_s
        try:
            child = Child(argv, environment_of_modules(), _WITHIN_S, subprocess.PIPE, is_of_cpu=True)
        except OSError as error:
            self._failed(f"no process can be started: {error.strerror}")
            return
        self._usage_bytes = usage_bytes
        self._child, self._found = child, replace(self._found, percent=0, error="")

    def poll(self) -> None:
        """Take what the child has printed."""
        if self._child is None:
            return
        child, status = self._child, self._child.poll(time.monotonic())
        document = _last_line(bytes(child.output))
        if status is None:
            self._found = replace(self._found, percent=document.get("percent", 0))
            return
        self._child = None
        if "sizes" in document:
            self._take(document)
        else:
            self._failed(document.get("error") or f"the reading {child.how_it_ended(status)}")

    def end(self) -> None:
        """End a reading that goes on."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _take(self, document: dict[str, Any]) -> None:
        sizes = {number: (held, unwritten) for number, held, unwritten in document["sizes"]}
        named = (HeldFile(**file) for file in document["named"])
        self._found = FilesNow(
            read_ns=time.monotonic_ns(),
            usage_bytes=self._usage_bytes,
            files=document["files"],
            is_whole=document["files"] == len(sizes) and not document["unnamed_bytes"],
            sizes=sizes,
            named=dict(zip(sizes, named, strict=False)),
        )
        self._rest()

    def _failed(self, error: str) -> None:
        self._found = replace(self._found, percent=None, error=error)
        self._rest()

    def _rest(self) -> None:
        now_s = time.monotonic()
        self._due_s = now_s + _REST * (now_s - self._began_s)


def _last_line(output: bytes) -> dict[str, Any]:
    """Return the last document of whole lines of JSON; {} without one."""
    for line in reversed(output.split(b"\n")[:-1]):
        with suppress(ValueError):
            document: dict[str, Any] = json.loads(line)
            return document
    return {}
