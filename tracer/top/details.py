"""The tables of one cgroup and the cgroups below it: memory, processes, files, reclaim and evictors."""

from __future__ import annotations

import mmap
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.analysis.results.memory import GrownCode
from tracer.categories import PARTS
from tracer.enumerations import EVICTION_CAUSES
from tracer.live.now import CgroupNow
from tracer.render.words import code_facts
from tracer.render.words.contents_words import file_advice, file_name
from tracer.top.files_now import FilesNow
from tracer.top.short_numbers import NONE, UNKNOWN, short_percent, short_size
from tracer.trace.arrow_columns import nullable_integers, weight_bytes, words
from tracer.units import count, duration

Numbers = npt.NDArray[np.int64]

_TABLES: Final = ("charge", "pagecache", "reclaim")
_MOST_BYTES: Final = 3 << 20
_MOST_AGE_NS: Final = 60_000_000_000
MOST_ROWS: Final = 100
FILES: Final = 2
CODE: Final = 5
"""The positions of the tables of files and of code among the tables of a cgroup."""
_MOST_PROCESSES: Final = 1000
_NULL: Final = -1
_SIZES: Final = {
    "RssAnon": "ANON", "RssFile": "FILE", "RssShmem": "SHMEM", "VmSwap": "SWAP",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. Each row has a text for each of `titles`. The first text is a name. Any text may be hostile.

    `note` explains the numbers, and `empty` is shown if there are no rows. `ends_in_words`: the last column
    has words instead of numbers.
    """

    title: str
    note: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str = ""
    ends_in_words: bool = False


class RecentRows:
    """A follower that keeps about the last minute of three tables, at most 3 MiB of each."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[int, int, pa.RecordBatch]]] = {name: deque() for name in _TABLES}
        self._bytes = dict.fromkeys(_TABLES, 0)

    def take(self, table: str, rows: pa.RecordBatch, now_ns: int) -> None:
        """Add rows that came at `now_ns`, the time of any clock that does not go back."""
        if table not in self._kept or not rows.num_rows:
            return
        kept, weight = self._kept[table], weight_bytes(rows)
        kept.append((now_ns, weight, rows))
        self._bytes[table] += weight
        while len(kept) > 1 and (self._bytes[table] > _MOST_BYTES or kept[0][0] < now_ns - _MOST_AGE_NS):
            self._bytes[table] -= kept.popleft()[1]

    def of(self, table: str, *names: str) -> dict[str, Any]:
        """Return columns of the kept rows by name: integers (-1 for null), or words for columns of words."""
        batches = [rows for _, _, rows in self._kept[table]]
        return {name: _joined([rows.column(name) for rows in batches]) for name in names}

    def since_s(self, table: str, now_ns: int) -> float | None:
        """Return the age of the oldest kept rows; None: no rows are kept."""
        kept = self._kept[table]
        return (now_ns - kept[0][0]) / 1e9 if kept else None


@dataclass
class Details:
    """Makes the tables of a cgroup. `file_name` returns inode_id -> name for the known ones of the given ids.
    `mount` is the directory of the cgroup hierarchy."""

    recent: RecentRows
    mount: Path
    file_name: Callable[[Collection[int]], dict[int, str]]
    proc: Path = Path("/proc")
    _comms: dict[int, str] = field(default_factory=dict)

    def sheets(
        self,
        now: CgroupNow,
        below: Sequence[CgroupNow],
        code: Sequence[GrownCode],
        files: FilesNow,
        now_ns: int,
    ) -> tuple[Sheet, ...]:
        """Return the tables of a cgroup. `below` are the cgroup and all cgroups below it, `code` is what made
        their memory grow, `files` is what their page cache has now."""
        ids = np.array([one.cgroup_id for one in below], np.int64)
        self._now_ns = now_ns
        return (
            _memory(now),
            self._processes(below, ids),
            self._files(ids, files),
            self._reclaim(ids),
            _evictors(now),
            _code(code),
        )

    def _window(self, table: str) -> str:
        since_s = self.recent.since_s(table, self._now_ns)
        return "nothing yet" if since_s is None else f"in the last {duration(max(round(since_s), 1))}"

    def _processes(self, below: Sequence[CgroupNow], ids: Numbers) -> Sheet:
        rows = self.recent.of("charge", "cgroup_id", "tgid", "bytes")
        is_ours = np.isin(rows["cgroup_id"], ids) & (rows["bytes"] > 0)
        charged = _sums(rows["tgid"][is_ours], rows["bytes"][is_ours])
        found = []
        for pid in self._pids(below):
            read = self._status(pid)
            if read is not None:
                total = sum(read[name] or 0 for name in ("RssAnon", "RssFile", "RssShmem"))
                found.append((total, pid, read))
        found.sort(key=lambda one: (-one[0], one[1]))
        texts = tuple(
            (
                read["Name"],
                str(pid),
                *(short_size(read[name]) if read[name] is not None else UNKNOWN for name in _SIZES),
                short_size(charged.get(pid, 0)),
            )
            for _, pid, read in found
        )
        return Sheet(
            "processes",
            f"resident memory now, whoever is charged for it; charged {self._window('charge')}",
            ("PROCESS", "PID", *_SIZES.values(), "CHARGED"),
            texts,
            "no process",
        )

    def _pids(self, below: Sequence[CgroupNow]) -> Iterator[int]:
        left = _MOST_PROCESSES
        for one in below:
            with suppress(OSError, ValueError):
                text = (self.mount / one.path.lstrip("/") / "cgroup.procs").read_text("ascii")
                for pid in text.split()[:left]:
                    left -= 1
                    yield int(pid)

    def _status(self, pid: int) -> dict[str, Any] | None:
        """Return the name and sizes of a process; None: it is gone, or has no memory of its own."""
        try:
            text = (self.proc / str(pid) / "status").read_text("utf-8", "surrogateescape")
        except OSError:
            return None
        fields = dict(line.split(":\t", 1) for line in text.split("\n") if ":\t" in line)
        sizes: dict[str, Any] = {}
        for name in _SIZES:
            number = fields.get(name, "").split()[:1]
            sizes[name] = int(number[0]) << 10 if number and number[0].isdigit() else None
        return {"Name": fields.get("Name", UNKNOWN), **sizes}

    def _files(self, ids: Numbers, held: FilesNow) -> Sheet:
        rows = self.recent.of("pagecache", "cgroup_id", "inode_id", "op", "cause", "nr_pages")
        is_ours = np.isin(rows["cgroup_id"], ids)
        inodes, sizes = rows["inode_id"][is_ours], rows["nr_pages"][is_ours] * mmap.PAGESIZE
        is_added = rows["op"][is_ours] == "add"
        is_evicted = ~is_added & np.isin(rows["cause"][is_ours], EVICTION_CAUSES)
        added, evicted, dropped = (
            _sums(inodes[which], sizes[which]) for which in (is_added, is_evicted, ~is_added & ~is_evicted)
        )
        moved = {*added, *evicted, *dropped}
        files = sorted(  # `sizes` has the largest first
            {*islice(held.sizes, MOST_ROWS), *moved},
            key=lambda one: (-(held.of(one)[0] or 0), -evicted.get(one, 0), -added.get(one, 0), one),
        )
        shown = files[:MOST_ROWS]
        names = self._names_of_files([one for one in shown if one != _NULL], held)
        texts = tuple(
            (
                "(sums of many files)" if one == _NULL else names.get(one, UNKNOWN),
                *map(short_size, (None, None) if one == _NULL else held.of(one)),
                *(short_size(of.get(one, 0)) for of in (added, evicted, dropped)),
            )
            for one in shown
        )
        number = held.files + sum(one not in held.sizes for one in moved)
        note = f"page cache charged to it: {held.words(self._now_ns)}; moved {self._window('pagecache')}"
        note += f"; {MOST_ROWS} of {count(number)} files" if number > MOST_ROWS else ""
        note += f". {advice}" if (advice := _advice_on_idle_files(held, moved)) else ""
        titles = ("FILE", "NOW", "DIRTY", "ADDED", "EVICTED", "DROPPED")
        return Sheet("files", note, titles, texts, "no page cache is known")

    def _names_of_files(self, inode_ids: Collection[int], held: FilesNow) -> dict[int, str]:
        """Return inode_id -> name of the known files. The recording knows a path as the acting process has
        it, so its path comes first."""
        names = self.file_name(inode_ids)
        for one in inode_ids:
            if (file := held.named.get(one)) is not None:
                names[one] = file_name(replace(file, path=names.get(one, file.path)))
        return names

    def _reclaim(self, ids: Numbers) -> Sheet:
        columns = ("cgroup_id", "task_cgroup_id", "tgid", "duration_ns", "scanned", "reclaimed", "kind")
        rows = self.recent.of("reclaim", *columns)
        is_ours = np.isin(rows["cgroup_id"], ids)
        tgids = rows["tgid"][is_ours]
        ones = np.ones(len(tgids), np.int64)
        attempts, nothing = (
            _sums(tgids, ones),
            _sums(tgids, (rows["reclaimed"][is_ours] == 0).astype(np.int64)),
        )
        spent = _sums(tgids, rows["duration_ns"][is_ours])
        scanned, freed = (_sums(tgids, rows[name][is_ours]) for name in ("scanned", "reclaimed"))
        texts = tuple(
            (
                self._comm(one),
                str(one),
                count(attempts[one]),
                count(nothing[one]) if nothing[one] else NONE,
                duration(spent[one] / 1e9),
                short_size(scanned[one] * mmap.PAGESIZE),
                short_size(freed[one] * mmap.PAGESIZE),
            )
            for one in sorted(attempts, key=lambda one: (-spent[one], one))[:MOST_ROWS]
        )
        return Sheet(
            "reclaim",
            f"attempts to reclaim its memory, {self._window('reclaim')}",
            ("BY PROCESS", "PID", "ATTEMPTS", "FREED NONE", "TIME", "EXAMINED", "FREED"),
            texts,
            "no reclaim attempt",
        )

    def _comm(self, pid: int) -> str:
        """Return the name of a process. An ended process keeps the name under which it was shown before."""
        with suppress(OSError):
            self._comms[pid] = (
                (self.proc / str(pid) / "comm").read_text("utf-8", "surrogateescape").rstrip("\n")
            )
        if len(self._comms) > _MOST_PROCESSES:
            self._comms = {pid: self._comms.get(pid, UNKNOWN)}
        return self._comms.get(pid, "(ended)")


def _advice_on_idle_files(held: FilesNow, moved: Collection[int]) -> str | None:
    """Return the sentence on the largest file that has one, among those of which nothing moved: cache that is
    evicted and read again is not active either, and is needed."""
    whole_bytes = held.usage_bytes or 0
    idle = (file for one, file in held.named.items() if one not in moved and file.bytes <= whole_bytes)
    return next((said for file in idle if (said := file_advice(file, whole_bytes))), None)


def failures_in(rows: pa.RecordBatch) -> Counter[int]:
    """Return target cgroup -> number of its attempts in rows of `reclaim` that freed nothing."""
    ids, freed = (
        nullable_integers(pa.chunked_array([rows.column(name)]), _NULL) for name in ("cgroup_id", "reclaimed")
    )
    return Counter(ids[(freed == 0) & (ids != _NULL)].tolist())


def _memory(now: CgroupNow) -> Sheet:
    def share(size: int | None) -> str:
        return short_percent(100 * size / now.usage_bytes) if size is not None and now.usage_bytes else ""

    sizes = {part: now.parts.get(part.name) for part in PARTS}
    texts = tuple((part.label, short_size(size), share(size), part.meaning) for part, size in sizes.items())
    note = "the parts of usage, which add up to it"
    return Sheet("memory", note, ("PART", "BYTES", "SHARE", "MEANING"), texts, ends_in_words=True)


def _code(code: Sequence[GrownCode]) -> Sheet:
    texts = tuple(
        (
            code_facts.frame(one.frames[0]) if one.frames else UNKNOWN,
            short_percent(100 * one.share),
            short_size(one.bytes),
            one.of,
            code_facts.callers_and_process(one),
        )
        for one in code[:MOST_ROWS]
    )
    return Sheet(
        "code",
        "functions that made memory grow that reclaim cannot free, sampled in the last 30 s",
        ("FUNCTION", "SHARE", "GREW", "KIND", "CALLED BY: PROCESS"),
        texts,
        "nothing was sampled: a cgroup is sampled while it has a limit, here or above, and grows",
        ends_in_words=True,
    )


def _evictors(now: CgroupNow) -> Sheet:
    texts = tuple(
        ("(others)" if not number else path or UNKNOWN, short_size(size))
        for number, path, size in now.evictors[:MOST_ROWS]
    )
    return Sheet(
        "evictors",
        "whose tasks evicted page cache of this cgroup itself, since the start",
        ("CGROUP OF THE TASK", "EVICTED"),
        texts,
        "no page cache of it was evicted",
    )


def _joined(columns: Sequence[pa.Array]) -> npt.NDArray[Any]:
    parts: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    for column in columns:
        chunked = pa.chunked_array([column])
        if pa.types.is_dictionary(column.type):
            codes, vocabulary = words(chunked)
            parts.append(np.array(vocabulary, np.str_)[codes])
        else:
            parts.append(nullable_integers(chunked, _NULL))
    return np.concatenate(parts[1:] or parts)


def _sums(keys: Numbers, amounts: Numbers) -> dict[int, int]:
    """Return each key with the sum of its amounts."""
    distinct, which = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, which.reshape(-1), amounts)
    return dict(zip(distinct.tolist(), sums.tolist(), strict=True))
