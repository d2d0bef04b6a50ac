"""The OOM reports in a log file, or in standard input.

A log may have copies of one kill: in two journals, in an event, or in a monitor's quotation. The most
complete copy is kept. A piece of a report that names nothing is not a kill: the title of the table of tasks,
or the beginning of a line `oom-kill:`. A search for words leaves such pieces.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import marshal
import math
import os
import re
import stat
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from tracer.errors import TracerError
from tracer.kernel.kmsg import assembly, other_killers, parser
from tracer.kernel.kmsg.other_killers import OtherKill
from tracer.kernel.kmsg.report import printed_lines
from tracer.kernel.kmsg.report.log_report import NOBODY, LogReport
from tracer.kernel.kmsg.text import documents, journal_entries, lines, shapes
from tracer.packed import Packed

Progress = Callable[[int], None]

_NEAR_NS: Final = 2_000_000_000
_FAR_NS: Final = 2 * _NEAR_NS  # by times as floats, which are no copies at any rounding
_MOST_COPIES: Final = 64
_SIZES: Final = ("total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes")
_sizes: Final = attrgetter(*_SIZES)


class _Traits(NamedTuple):
    """What shows whether two reports are copies, and which of them is more complete.

    `key` is what all copies have in common: the killed task; of a report without a kill, the chosen task, or
    else the trigger.
    """

    key: tuple[int | None, str | None]
    since_boot_ns: int | None
    sizes: tuple[int | None, ...] | None
    invoker: tuple[int | str | None, ...] | None
    fullness: tuple[int, int, int]


def merged(reports: Iterable[LogReport]) -> Packed[LogReport]:
    """Return the reports without copies, in the order in which each kill first appears.

    An event of the kubelet is a copy if the kernel's lines have a kill of a process of the same name: the
    event follows these lines, and may be repeated. The beginning of a line `oom-kill:` is kept if the log has
    nothing else: it still shows that there was a kill.
    """
    piece: LogReport | None = None
    kept, events = Packed[LogReport](), set[int]()
    known = _Known()
    for report in reports:
        if _is_piece(report):
            piece = report if report.constraint != "unknown" else piece
            continue
        traits = _traits(report)
        at, other = known.copy_of(traits)
        if at is None or other is None:
            at = len(kept)
            known.add(traits)
            kept.append(report)
        elif traits.fullness > other.fullness:
            known.replace(at, traits)
            kept.replace(at, report)
        else:
            continue
        if report.kills and all(kill.reason == printed_lines.EVENT for kill in report.kills):
            events.add(at)
        else:
            events.discard(at)
    if events:
        kept = kept.only(_without_copied_events(kept, events))
    return Packed([piece]) if not kept and piece is not None else kept


class _Known:
    """The traits of the reports that are kept, each as a few bytes: a log may have them by the hundred
    thousand."""

    def __init__(self) -> None:
        self._traits: list[bytes] = []
        self._times_ns = array("d")  # since boot; nan: not known
        self._last: dict[int, int] = {}  # hash of a key -> the last place of a report with it
        self._before = array("q")  # place -> the place before it with the same hash; -1: there is none

    def add(self, traits: _Traits) -> None:
        of_key = hash(traits.key)
        self._before.append(self._last.get(of_key, -1))
        self._last[of_key] = len(self._traits)
        self._traits.append(marshal.dumps(tuple(traits)))
        self._times_ns.append(_number(traits.since_boot_ns))

    def replace(self, at: int, traits: _Traits) -> None:
        self._traits[at] = marshal.dumps(tuple(traits))
        self._times_ns[at] = _number(traits.since_boot_ns)

    def copy_of(self, traits: _Traits) -> tuple[int | None, _Traits | None]:
        """Return the place and the traits of the first copy of a report among the last ones with its key;
        (None, None) if there is none."""
        found: tuple[int | None, _Traits | None] = None, None
        time_ns, at = _number(traits.since_boot_ns), self._last.get(hash(traits.key), -1)
        for _ in range(_MOST_COPIES):
            if at < 0:
                break
            if not abs(self._times_ns[at] - time_ns) > _FAR_NS:
                other = _Traits(*marshal.loads(self._traits[at]))
                if other.key == traits.key and _is_copy(other, traits):
                    found = at, other
            at = self._before[at]
        return found


def _number(time_ns: int | None) -> float:
    return math.nan if time_ns is None else float(time_ns)


def _without_copied_events(kept: Sequence[LogReport], events: set[int]) -> Iterator[int]:
    """Yield the places of the reports that are no events on a kill that the kernel's lines have."""
    logged = {kill.comm for report in kept for kill in report.kills if kill.reason != printed_lines.EVENT}
    for at, report in enumerate(kept):
        if at not in events or not all(kill.comm in logged for kill in report.kills):
            yield at


def _is_piece(report: LogReport) -> bool:
    """Return whether a report names no task, no cgroup, and no memory but perhaps a part of its limits."""
    has_names = report.kills or report.chosen or report.oom_memcg or report.task_memcg or report.group_memcg
    has_memory = "memory" in report.counters or report.stats or report.tasks or report.mem_info
    is_of_panic = report.is_panic or report.is_no_task_killable
    return not (has_names or has_memory or is_of_panic or report.stack or report.invoker != NOBODY)


def _traits(report: LogReport) -> _Traits:
    sizes = sum(len(_SIZES) - _sizes(kill).count(None) for kill in report.kills)
    fullness = -len(report.missing), len(report.tasks), sizes
    if not report.kills:
        invoker = report.invoker
        # A report with the cgroup of the limit tells more than a kill alone.
        named = None if report.oom_memcg is not None else report.chosen
        key = (invoker.pid, None) if named is None else (named.pid, named.comm)
        return _Traits(key, report.stamp.since_boot_ns, None, tuple(invoker), fullness)
    kill = report.kills[0]
    return _Traits((kill.pid, kill.comm), kill.stamp.since_boot_ns, _sizes(kill), None, fullness)


def _is_copy(one: _Traits, other: _Traits) -> bool:
    times = one.since_boot_ns, other.since_boot_ns
    is_timed = None not in times
    if is_timed and abs((times[0] or 0) - (times[1] or 0)) > _NEAR_NS:
        return False
    if one.sizes is not None and other.sizes is not None:
        if one.key[0] is None:  # any number of processes may have one name
            return one.sizes == other.sizes and one.sizes.count(None) < len(one.sizes)
        return _has_same_sizes(one.sizes, other.sizes)
    if one.sizes is not None or other.sizes is not None:
        return True  # the task that one report chose is the one that the other killed
    return is_timed and times[0] == times[1] and one.invoker == other.invoker


def _has_same_sizes(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Return whether all sizes that both kills have are equal; an event has no sizes."""
    known = [pair for pair in zip(one, other, strict=True) if None not in pair]
    has_none = any(all(size is None for size in sizes) for sizes in (one, other))
    return has_none or (bool(known) and all(left == right for left, right in known))


_CHUNK_BYTES: Final = 1 << 20
_COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"\xfd7zXZ\x00", "xz", lzma.open),
    (b"BZh", "bzip2", bz2.open),
)
"""The first bytes of a compressed file, its format, and the function that opens it."""

_MOST_MAGIC: Final = 6
_NULL_DEVICE: Final = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt
_KILL: Final = re.compile(
    r"Kill(?:ed)? process|invoked oom-killer|oom-kill:constraint|oom_reaper: (?:reaped process|unable to)"
    r"|are going to be killed due to memory\.oom\.group"
)
_KILL_IN_BYTES: Final = re.compile(_KILL.pattern.encode())
_MOST_SHOWN: Final = 200
_MOST_OTHER_KILLS: Final = 10_000
_TASK_ROW: Final = re.compile(r"\[ *\d{1,10}\](?: +-?\d{1,20}){6,14} +\S")
_TASK_ROW_IN_BYTES: Final = re.compile(_TASK_ROW.pattern.encode())
_MOST_TASK_ROWS: Final = 10_000
_OF_OTHER_FORMATS: Final = (
    (b"\x28\xb5\x2f\xfd", "zstd: give it to zstdcat, and what that prints to --kmsg -"),
    (b"LPKSHHRH", "a journal: give it to journalctl -k --file, and what that prints to --kmsg -"),
)
"""The first bytes of a file that is not text, and the advice for the user."""


@dataclass(frozen=True, slots=True)
class Log:
    """The kills in a log, each once: kills with lines of the kernel's OOM killer, and other kills."""

    reports: Sequence[LogReport]
    other_kills: list[OtherKill]


class _Watched:
    """The lines of a log on their way to the parser, and the kills in them that have no report.

    `first_kill` is the first line that names a kill of the kernel, and `task_rows` are the lines before it
    that may be rows of the table of tasks, with their numbers. `has_kernel_line`: a line has the time or the
    mark with which the kernel's messages are logged.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._reader = lines.Reader()
        self.other_kills: list[OtherKill] = []
        self.first_kill: tuple[int, str] | None = None
        self.task_rows: list[tuple[int, str]] = []
        self.has_kernel_line = False

    def __iter__(self) -> Iterator[str]:
        first = 1
        for text, block in lines.blocks(self._chunks):
            may_have_other = other_killers.may_have_kill(text)
            is_sought = may_have_other or not self.has_kernel_line
            if self.first_kill is None and _TASK_ROW_IN_BYTES.search(text) is not None:
                self._keep_task_rows(block, first)
            if is_sought or (self.first_kill is None and _KILL_IN_BYTES.search(text) is not None):
                for number, line in enumerate(block, start=first):
                    self._watch(line, number)
                    yield line
            else:
                yield from block
            first += len(block)

    def _keep_task_rows(self, block: Sequence[str], first: int) -> None:
        rows = ((at, line) for at, line in enumerate(block, first) if _TASK_ROW.search(line) is not None)
        self.task_rows += islice(rows, _MOST_TASK_ROWS - len(self.task_rows))

    def table_alone(self) -> LogReport | None:
        """Return the report of which the log has only rows of its table of tasks; None without rows."""
        reader = lines.Reader()
        records = [record for number, line in self.task_rows for record in reader.read(line, number)]
        return assembly.of_rows([one for one in records if shapes.kind(one.text.lstrip()) == "task"])

    def _watch(self, line: str, number: int) -> None:
        self.has_kernel_line = self.has_kernel_line or self._reader.is_of_kernel(line, number)
        if (found := other_killers.kill(line, number)) is not None:
            if len(self.other_kills) < _MOST_OTHER_KILLS:
                self.other_kills.append(found)
        elif self.first_kill is None and _KILL.search(line) is not None:
            self.first_kill = number, line


def read(log: str, progress: Progress | None = None) -> Log:
    """Return the kills in a file (text, or gzip, xz or bzip2 of text), or in standard input for `-`.

    `progress` is called with the number of bytes of text that were read so far, for each MiB or less.
    Raises TracerError for any other file, for one without a line of the kernel, or if the text names a kill
    of the kernel that cannot be read.
    """
    if log == "-":
        return read_stream(sys.stdin.buffer, "standard input", progress)
    with Path(log).open("rb") as stream:
        if _is_endless(stream):
            raise TracerError(f"{log} has no end: give what dmesg prints to --kmsg -")
        return read_stream(stream, log, progress)


def read_stream(stream: BinaryIO, name: str, progress: Progress | None = None) -> Log:
    """Return the kills in a stream of the bytes of a log. Raises TracerError, with `name`, as `read` does."""
    chunks = _chunks(stream, name) if progress is None else _reported(_chunks(stream, name), progress)
    first = next(chunks, b"")
    for beginning, what in _OF_OTHER_FORMATS:
        if first.startswith(beginning):
            raise TracerError(f"{name} is {what}")
    watched = _Watched(journal_entries.as_lines(documents.as_lines(chain([first], chunks))))
    reports = merged(parser.reports(watched))
    others = other_killers.without_copies(watched.other_kills)
    if reports:
        return Log(reports, [one for one in others if not one.is_by_oom_killer])
    if watched.first_kill is not None:
        number, line = watched.first_kill
        shown = line.encode("utf-8", "backslashreplace").decode().strip()[:_MOST_SHOWN]
        raise TracerError(f"{name} names a kill that could not be read, in line {number}: {shown!r}")
    if (part := watched.table_alone()) is not None:
        return Log(Packed([part]), others)
    if not others and b"\0" in first:
        raise TracerError(f"{name} is not text: give what dmesg or journalctl -k prints, or a kern.log")
    if not others and not watched.has_kernel_line:
        what = "has no line of the kernel" if first else "is empty"
        raise TracerError(
            f"{name} {what}, so it cannot show a kill: give what dmesg or journalctl -k prints (as root; "
            "journalctl -k -b -1 has the boot before), or a kern.log"
        )
    return Log(reports, others)


def _is_endless(stream: BinaryIO) -> bool:
    """Return whether a stream is a device such as /dev/kmsg or /dev/zero. /dev/null and terminals have an
    end."""
    status = os.fstat(stream.fileno())
    return stat.S_ISCHR(status.st_mode) and status.st_rdev != _NULL_DEVICE and not stream.isatty()


def _chunks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the content of a file in chunks of bounded size; a truncated compressed file is read up to its
    end."""
    buffered = stream if isinstance(stream, BufferedReader) else BufferedReader(stream)  # type: ignore[type-var]
    magic = buffered.peek(_MOST_MAGIC)
    for beginning, kind, opened in _COMPRESSED:
        if magic.startswith(beginning):
            try:
                yield from _pieces(opened(buffered, "rb"))
            except EOFError:
                return
            except (OSError, zlib.error, lzma.LZMAError) as error:
                raise TracerError(f"{name} is {kind}, and broken: {error}") from None
            return
    yield from _pieces(buffered)


def _reported(chunks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    read_bytes = 0
    for chunk in chunks:
        yield chunk
        read_bytes += len(chunk)
        progress(read_bytes)


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def _pieces(stream: _Readable) -> Iterator[bytes]:
    while piece := stream.read1(_CHUNK_BYTES):
        yield piece
