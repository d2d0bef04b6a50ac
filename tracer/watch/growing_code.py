"""The code that makes memory grow now, from the rows of a recording that goes on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from tracer.analysis.results.memory import Grown, GrownCode
from tracer.analysis.views.grown_functions import StackGrowth, grown_functions
from tracer.render.words import code_facts
from tracer.trace.arrow_columns import integers, nullable_integers, take, weight_bytes, words
from tracer.trace.history.history import KeptNames

KINDS: Final = ("anon", "shmem", "kernel")
"""The kinds of memory that reclaim cannot free."""

_MOST_AGE_NS: Final = 30_000_000_000
_MOST_BYTES: Final = 1 << 20
_NO_STACK: Final = -1
_LONGEST_COMM: Final = 64


class _Key(NamedTuple):
    kind: str
    tgid: int
    user: int
    kernel: int


class GrowingCode:
    """Keeps the samples of code of the last 30 s, at most 1 MiB of them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._kept: deque[tuple[int, int, pa.RecordBatch]] = deque()
        self._bytes = 0

    def take(self, samples: pa.RecordBatch, now_ns: int) -> None:
        """Add rows of `code_samples` that came at `now_ns`, the time of any clock that does not go back."""
        weight = weight_bytes(samples)
        self._kept.append((now_ns, weight, samples))
        self._bytes += weight
        self._drop(now_ns)

    def _drop(self, now_ns: int) -> None:
        while self._kept and (self._bytes > _MOST_BYTES or self._kept[0][0] < now_ns - _MOST_AGE_NS):
            self._bytes -= self._kept.popleft()[1]

    def grown(self, cgroup_id: int, names: KeptNames, now_ns: int) -> tuple[GrownCode, ...]:
        """Return the code that made memory of `KINDS` grow in a cgroup and below it, the largest share first.

        Shares are of the samples whose stack has its names by now; those of the last moments have none yet.
        """
        self._drop(now_ns)
        sums, squares = self._sums(self._below(cgroup_id, names))
        stacks = _stacks(names, {one for key in sums for one in (key.user, key.kernel)} - {_NO_STACK})
        known = {key: size for key, size in sums.items() if {key.user, key.kernel} - {_NO_STACK} <= {*stacks}}
        comms = self._comms({key.tgid for key in known}, names)
        return grown_functions(
            {
                kind: [
                    StackGrowth(
                        comms[key.tgid],
                        key.tgid,
                        stacks.get(key.user, ()),
                        stacks.get(key.kernel, ()),
                        size,
                        squares[key],
                    )
                    for key, size in known.items()
                    if key.kind == kind
                ]
                for kind in KINDS
            }
        )

    def _below(self, cgroup_id: int, names: KeptNames) -> set[int]:
        """Return the cgroup and those with samples that lie below it."""
        sampled = {one for _, _, rows in self._kept for one in integers(rows.column("cgroup_id")).tolist()}
        rows = names.among("cgroups", np.array([cgroup_id, *sampled], np.int64)).select(["cgroup_id", "path"])
        paths = {row["cgroup_id"]: f"{row['path'].rstrip('/')}/" for row in rows.to_pylist()}
        top = paths.get(cgroup_id)
        return {cgroup_id} | {one for one, path in paths.items() if top is not None and path.startswith(top)}

    def _sums(self, members: Collection[int]) -> tuple[Counter[_Key], Counter[_Key]]:
        """Return the bytes of the samples with each stack, and the sum of their squares, without those that
        were freed."""
        sums: Counter[_Key] = Counter()
        squares: Counter[_Key] = Counter()
        wanted = np.array([*members], np.int64)
        nothing = np.zeros(0, np.int64)
        freed = np.concatenate(
            [nothing, *(nullable_integers(rows.column("sampled"), -1) for _, _, rows in self._kept)]
        )
        for _, _, rows in self._kept:
            is_held = ~np.isin(nullable_integers(rows.column("time"), -1), freed) & (
                integers(rows.column("bytes")) > 0
            )
            codes, vocabulary = words(rows.column("category"))
            tgid, nr_bytes = (integers(rows.column(name)) for name in ("tgid", "bytes"))
            user, kernel = (
                nullable_integers(rows.column(name), _NO_STACK) for name in ("stack_id", "kernel_stack_id")
            )
            is_wanted = np.isin(integers(rows.column("cgroup_id")), wanted) & is_held
            for at in np.flatnonzero(is_wanted).tolist():
                category = vocabulary[codes[at]]
                kind = "kernel" if category == "sock" else category or ""
                if kind in KINDS:
                    key = _Key(kind, int(tgid[at]), int(user[at]), int(kernel[at]))
                    sums[key] += int(nr_bytes[at])
                    squares[key] += int(nr_bytes[at]) ** 2
        return sums, squares

    def _comms(self, tgids: Collection[int], names: KeptNames) -> dict[int, str | None]:
        """Return the name of each process. One that has ended is in the history: a container in a crash loop
        leaves a process with each start."""
        found = {tgid: self._comm(tgid) for tgid in tgids}
        ended = np.array([tgid for tgid, comm in found.items() if comm is None], np.int64)
        for data in names.tables("tasks") if len(ended) else ():
            rows = take(data, np.flatnonzero(np.isin(integers(data.column("tgid")), ended)))
            found |= {row["tgid"]: row["comm"] for row in rows.select(["tgid", "comm"]).to_pylist()}
        return found

    def _comm(self, tgid: int) -> str | None:
        with suppress(OSError), (self._proc / str(tgid) / "comm").open("rb") as file:
            return file.read(_LONGEST_COMM).decode("utf-8", "surrogateescape").rstrip("\n")
        return None


def sentence(code: Collection[GrownCode]) -> str:
    """Return ` What grows: 71 % in load_rows (app.py:41): python3 (41).`, to follow another sentence; empty
    if no code is known."""
    said = "; ".join(text for _, text in code_facts.grown(Grown(tuple(code))))
    return f" What grows: {said}." if said else ""


def _stacks(names: KeptNames, ids: Collection[int]) -> dict[int, tuple[str, ...]]:
    rows = names.among("stacks", np.array(sorted(ids), np.int64)).select(["stack_id", "frames"])
    return {row["stack_id"]: tuple(row["frames"]) for row in rows.to_pylist()}
