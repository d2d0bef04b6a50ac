"""The memory of one process: its mappings in groups, and what its runtimes show.

Node.js shows its options for V8's heap, which are in NODE_OPTIONS, and a server shows the title that it
writes over its command line. Nothing else of the environment is kept: it may hold secrets.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from tracer.kernel.anatomy import glibc_arenas, go_runtime, hsperfdata
from tracer.kernel.anatomy.mapping_kinds import Group, folded, groups
from tracer.kernel.anatomy.own_files import identity
from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.anatomy.smaps import Mapping, read_smaps
from tracer.kernel.process.live_memory import Memory
from tracer.kernel.process.resident import command_line, environment

MOST_RSS_BYTES: Final = 16 << 30
"""The mappings of a larger process are not read: it could not map memory for a quarter of a second."""

MOST_S: Final = 0.25
"""The most time that reading one process takes, apart from its largest mapping."""

_MOST_GROUPS: Final = 24
_INEXACT_BYTES: Final = 4 << 20
"""RSS is summed over CPUs since f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), v6.2, and
statm(5) does not ask for the exact sum."""

_MOST_THREADS: Final = 1024
PROC: Final = Path("/proc")

_NODE_OPTIONS: Final = b"NODE_OPTIONS="
_NODE_OPTION: Final = re.compile(
    rb"(?:^| )(--max[-_](?:old|semi)[-_]space[-_]size[= ]\d{1,9}|--perf[-_]basic[-_]prof)(?= |$)"
)
_MOST_ENVIRONMENT_BYTES: Final = 1 << 20
_MOST_OPTIONS: Final = 16

_SERVERS: Final = {b"postgres: ": "postgresql"}
"""The beginning of a title -> the server: `postgres: USER DATABASE CLIENT COMMAND`
(src/backend/utils/misc/ps_status.c)."""

_MOST_TITLE_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class ProcessAnatomy:
    """The memory of a process at a moment of CLOCK_MONOTONIC.

    `groups` are its mappings; those that were not read are a group of the kind `unread`. `runtimes` is what
    its runtimes showed.
    """

    tgid: int
    time_ns: int
    groups: list[Group]
    runtimes: Sequence[Shown]


def rss_bytes(tgid: int, proc: Path = PROC) -> int:
    """Return the resident set size of a process, in bytes; 0 if it has ended."""
    try:
        with open(proc / str(tgid) / "statm", "rb", buffering=0) as stream:  # noqa: PTH123  hot
            return int(stream.read(256).split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0


def read_process(tgid: int, proc: Path = PROC, *, runtimes: bool = True) -> ProcessAnatomy | None:
    """Return the memory of a process as it is now; None if it has ended, or if nothing of it can be read.

    `runtimes`: also read its runtimes, and for that its files, which may be on a file system of its own.
    """
    process, now_ns = proc / str(tgid), time.monotonic_ns()
    until_s = now_ns / 1e9 + MOST_S
    rss = rss_bytes(tgid, proc)
    if rss > MOST_RSS_BYTES:
        return ProcessAnatomy(tgid, now_ns, [_unread("the process is larger than 16 GiB", rss)], ())
    try:
        pointers = set(_stack_pointers(process, until_s))
        read = read_smaps(process, until_s)
    except OSError:
        return None
    found = groups(read.mappings, pointers)
    read_bytes = sum(one.rss_bytes for one in read.mappings)
    is_whole = read.why_partial is None
    if is_whole and (not found or read_bytes < rss - rss // 4 - _INEXACT_BYTES):  # it ends, and frees it
        return None
    kinds = {one.kind for one in found}
    shown = tuple(_runtimes(process, tgid, read.mappings, kinds, until_s)) if runtimes else ()
    listed = folded(found, _MOST_GROUPS)
    if read.why_partial is not None:
        listed.append(_unread(read.why_partial, max(rss - read_bytes, 0)))
    return ProcessAnatomy(tgid, now_ns, listed, shown)


def _runtimes(
    process: Path, tgid: int, mappings: Sequence[Mapping], kinds: Collection[str], until_s: float
) -> Iterator[Shown]:
    """Yield what the runtimes of a process show, which its mappings tell."""
    if any(one.name.endswith(b"/libjvm.so") for one in mappings):
        yield from hsperfdata.shown(hsperfdata.read_counters(process, identity(process, tgid)))
    if "v8 heap" in kinds:
        yield from node_options(process)
    yield from server_title(process)
    with suppress(OSError), closing(Memory(tgid, process.parent)) as memory:
        if "go heap" in kinds:
            program = next((one.start for one in mappings if one.inode), 0)
            yield from go_runtime.read_runtime(process, memory, program, until_s)
        yield from glibc_arenas.read_arenas(memory, mappings, until_s)


def node_options(process: Path) -> Iterator[Shown]:
    """Yield the options of a process (a directory of /proc) as one text; nothing if they cannot be read."""
    with suppress(OSError):
        options = parse_environment(environment(process, _MOST_ENVIRONMENT_BYTES))
        yield Shown("node", "options", text=" ".join(options))


def parse_environment(text: bytes) -> list[str]:
    """Return the options for V8's heap and for names of functions in NODE_OPTIONS, in their order."""
    for entry in text.split(b"\0"):
        if entry.startswith(_NODE_OPTIONS):
            found = _NODE_OPTION.findall(b" ".join(entry.removeprefix(_NODE_OPTIONS).split()))
            return [option.decode("ascii") for option in found[-_MOST_OPTIONS:]]
    return []


def server_title(process: Path) -> Iterator[Shown]:
    """Yield the title of a process (a directory of /proc); nothing if it is of no server that is known."""
    with suppress(OSError):
        title = command_line(process, _MOST_TITLE_BYTES).partition(b"\0")[0].strip()
        for prefix, kind in _SERVERS.items():
            if title.startswith(prefix):
                yield Shown(kind, "title", text=title.decode(errors="surrogateescape"))


def _unread(why: str, bytes_: int) -> Group:
    return Group("unread", why.encode(), 0, 0, bytes_, None, 0, 0)


def _stack_pointers(process: Path, until_s: float) -> Iterator[int]:
    """Yield the stack pointers of the threads that wait in the kernel (proc_pid_syscall(5))."""
    with os.scandir(process / "task") as threads:
        for thread in islice(threads, _MOST_THREADS):
            if time.monotonic() > until_s:
                return
            with (
                suppress(OSError, ValueError, IndexError),
                open(f"{thread.path}/syscall", "rb", buffering=0) as stream,  # noqa: PTH123  hot
            ):
                yield int(stream.read(256).split()[-2], 16)
