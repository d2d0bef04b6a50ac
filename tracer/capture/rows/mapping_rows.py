"""Rows of `mappings` and `runtimes`: the memory of the largest processes of cgroups that near their limits.

A child reads them, since a process decides how long that takes: it has the mappings, the names of their
files, and the file systems on which its files are. The recorder never waits for the child while it records,
and gives up a child that does not answer.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn

import pyarrow as pa

from tracer.kernel.anatomy.process_anatomy import ProcessAnatomy, read_process, rss_bytes
from tracer.kernel.cgroups.cgroupfs import descendants
from tracer.kernel.meminfo import meminfo_bytes
from tracer.kernel.process.children import end_with_parent, kill_child
from tracer.kernel.process.priority import prefer_this_thread
from tracer.live.approach import Approach
from tracer.stored_names import stored_name

MOST_PROCESSES: Final = 3
"""The processes of a cgroup that one look reads, the largest first."""

MOST_SHARE: Final = 0.02
"""The share of one CPU that all looks together may take."""

_AGAIN_S: Final = 1.0
_LEAST_RSS_BYTES: Final = 1 << 20
_SWAP_AGAIN_S: Final = 1.0
_IDLE_S: Final = 60.0  # then the child ends, which has memory of its own
_ANSWERS_WITHIN_S: Final = 10.0
_MOST_FAILURES: Final = 3
_MOST_CGROUPS: Final = 256
_MOST_TGIDS: Final = 2048
_MOST_PROCS_BYTES: Final = 1 << 16
_MOST_NAME: Final = 256
_MOST_TEXT: Final = 1024
_MESSAGE_BYTES: Final = 1 << 17
_STATES_KEPT: Final = 4096

Tables = dict[str, list[dict[str, Any]]]


class MappingRows:
    """Looks at the processes of cgroups whose samples show that the end is near (`live.approach`).

    `directory_of` returns the directory of a cgroup, or None if it is no longer sampled. `warn` is called if
    the child had to be given up too often; from then on there are no more looks.
    """

    def __init__(self, directory_of: Callable[[int], Path | None], warn: Callable[[str], None]) -> None:
        self._directory_of = directory_of
        self._warn = warn
        self._approach = Approach()
        self._reader: _Reader | None = None
        self._failures = 0
        self._waiting: dict[int, None] = {}  # cgroups to look at, the most urgent first
        self._rests_until_s = 0.0
        self._swap_bytes, self._swap_read_s = 0, -_SWAP_AGAIN_S

    def look(self, samples: pa.RecordBatch) -> None:
        """Take samples, and begin the looks that are due."""
        if time.monotonic() - self._swap_read_s > _SWAP_AGAIN_S:
            self._swap_bytes, self._swap_read_s = meminfo_bytes().get("SwapFree", 0), time.monotonic()
        due = self._approach.take(samples, self._swap_bytes)
        self._waiting = dict.fromkeys([*due, *self._waiting])
        if len(self._approach.states) > _STATES_KEPT:
            known = self._approach.states.copy_places()
            self._approach.forget([number for number in known if self._directory_of(number) is None])

    def take(self, clock_offset_ns: int) -> Tables:
        """Return the rows of the looks that have ended, by table, and begin the next look."""
        tables: Tables = {"mappings": [], "runtimes": []}
        if self._reader is not None and self._reader.is_busy:
            for answer in self._reader.answers():
                _add_rows(tables, answer, clock_offset_ns)
            if not self._reader.is_busy:
                self._rests_until_s = time.monotonic() + self._reader.cpu_s / MOST_SHARE
            elif self._reader.has_failed:
                self._give_up()
        elif not self._waiting and time.monotonic() - self._rests_until_s > _IDLE_S:
            self.close()
        self._begin()
        return tables

    def finish(self, clock_offset_ns: int, within_s: float) -> Tables:
        """Return what `take` does, for all looks that were due; wait at most so long."""
        until_s = time.monotonic() + within_s
        tables: Tables = {"mappings": [], "runtimes": []}
        self._rests_until_s = 0.0
        while time.monotonic() < until_s:
            for table, rows in self.take(clock_offset_ns).items():
                tables[table] += rows
            if self._reader is None or not self._reader.is_busy:
                break
            self._reader.wait(until_s - time.monotonic())
        return tables

    def close(self) -> None:
        """End the child."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _begin(self) -> None:
        if self._failures >= _MOST_FAILURES or time.monotonic() < self._rests_until_s:
            return
        if self._reader is not None and self._reader.is_busy:
            return
        while self._waiting:
            cgroup_id = next(iter(self._waiting))
            del self._waiting[cgroup_id]
            directory = self._directory_of(cgroup_id)
            if directory is not None:
                self._reader = self._reader or _Reader()
                self._reader.ask(cgroup_id, directory)
                return

    def _give_up(self) -> None:
        self.close()
        self._failures += 1
        if self._failures == _MOST_FAILURES:
            self._warn("the mappings of processes are no longer read: reading them took too long")


def _add_rows(tables: Tables, answer: dict[str, Any], clock_offset_ns: int) -> None:
    common = {
        "time": answer["time_ns"] + clock_offset_ns,
        "cgroup_id": answer["cgroup_id"],
        "tgid": answer["tgid"],
    }
    tables["mappings"] += [common | group for group in answer["groups"]]
    tables["runtimes"] += [common | shown for shown in answer["runtimes"]]


class _Reader:
    """A child that reads the processes of one cgroup at a time, until `close`.

    `cpu_s`: the CPU time of the last look.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _serve(theirs.fileno())
        theirs.close()
        self._socket.setblocking(False)
        self._asked_s: float | None = None
        self._has_ended = False
        self.cpu_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Return whether a look goes on."""
        return self._asked_s is not None

    @property
    def has_failed(self) -> bool:
        """Return whether a look takes too long, or the child has ended."""
        is_late = self._asked_s is not None and time.monotonic() - self._asked_s > _ANSWERS_WITHIN_S
        return is_late or self._has_ended

    def ask(self, cgroup_id: int, directory: Path) -> None:
        """Begin to look at the processes of a cgroup and those below it."""
        self._asked_s = time.monotonic()
        with suppress(OSError):  # the child has ended, as reading from it shows
            self._socket.send(json.dumps([cgroup_id, str(directory)]).encode())

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield an answer for each process that was read since the last call."""
        with suppress(BlockingIOError):
            while message := self._receive():
                answer = json.loads(message)
                if "cpu_s" in answer:
                    self._asked_s, self.cpu_s = None, answer["cpu_s"]
                    return
                yield answer
            self._has_ended = True

    def _receive(self) -> bytes:
        """Return the next message; b"" if the child has ended. Raises BlockingIOError if there is none."""
        try:
            return self._socket.recv(_MESSAGE_BYTES)
        except ConnectionError:
            return b""

    def wait(self, within_s: float) -> None:
        """Wait until the child has answered, at most so long."""
        self._socket.settimeout(max(within_s, 0.001))
        with suppress(OSError):
            self._socket.recv(1, socket.MSG_PEEK)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Kill the child."""
        self._socket.close()
        kill_child(self._child)


def _serve(fd: int) -> NoReturn:
    """Serve requests in the child, which keeps no descriptor of its parent and ends with it."""
    try:
        end_with_parent()
        prefer_this_thread()  # a process that grows fast is killed within a moment
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
        os.dup2(fd, 3)
        os.closerange(0, 3)
        os.closerange(4, last + 1)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        with socket.socket(fileno=3) as ours:
            read_s: dict[int, float] = {}
            while request := ours.recv(_MESSAGE_BYTES):
                begin_s = time.thread_time()
                cgroup_id, directory = json.loads(request)
                for anatomy in _largest(Path(directory), read_s):
                    ours.send(_message(cgroup_id, anatomy))
                ours.send(json.dumps({"cpu_s": time.thread_time() - begin_s}).encode())
    finally:
        os._exit(0)


def _largest(directory: Path, read_s: dict[int, float]) -> Iterator[ProcessAnatomy]:
    """Yield the largest processes of a cgroup, without those that were read a moment ago."""
    now_s = time.monotonic()
    for tgid in [tgid for tgid, at_s in read_s.items() if now_s - at_s >= _AGAIN_S]:
        del read_s[tgid]
    sizes = {tgid: rss_bytes(tgid) for tgid in _tgids(directory)}
    largest = sorted(sizes, key=lambda tgid: -sizes[tgid])[:MOST_PROCESSES]
    for tgid in largest:
        if sizes[tgid] < _LEAST_RSS_BYTES or tgid in read_s:
            continue
        read_s[tgid] = time.monotonic()
        if (anatomy := read_process(tgid)) is not None:
            yield anatomy


def _tgids(directory: Path) -> set[int]:
    """Return processes of a cgroup and of those below it, as many as the bounds allow."""
    found: set[int] = set()
    for below in islice(descendants(directory), _MOST_CGROUPS):
        if len(found) >= _MOST_TGIDS:
            break
        with suppress(OSError), open(below / "cgroup.procs", "rb", buffering=0) as stream:  # noqa: PTH123
            found.update(map(int, stream.read(_MOST_PROCS_BYTES).split()))
    found.discard(0)  # of another pid namespace
    return set(islice(found, _MOST_TGIDS))


def _message(cgroup_id: int, anatomy: ProcessAnatomy) -> bytes:
    groups = [asdict(group) | {"name": stored_name(group.name)[:_MOST_NAME]} for group in anatomy.groups]
    answer = {
        "cgroup_id": cgroup_id,
        "time_ns": anatomy.time_ns,
        "tgid": anatomy.tgid,
        "groups": groups,
        "runtimes": [shown._asdict() | {"text": _text(shown.text)} for shown in anatomy.runtimes],
    }
    return json.dumps(answer).encode()


def _text(text: str | None) -> str | None:
    return None if text is None else stored_name(text.encode(errors="backslashreplace"))[:_MOST_TEXT]
