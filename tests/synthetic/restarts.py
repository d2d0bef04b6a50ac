"""Traces of restart loops, made without a kernel: a process reads files, grows to its limit and is killed.

In a life, page cache grows to the limit; anonymous memory grows and takes its place; reclaim frees less and
less; tasks wait for the disk and for pages from swap; the process is killed, and all of its memory is freed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic.unset import table_of

LIMIT_BYTES: Final = 256 << 20
CONTAINER_ID: Final = "4f2a" * 16
LIKE: Final = Path(__file__).parents[2] / "traces" / "page-cache"
START_NS: Final = 1_764_000_000_000_000_000
LIFE_NS: Final = 5_000_000_000
KILLED_NS: Final = LIFE_NS * 4 // 5
PARENT_ID: Final = 10
FIRST_ID: Final = 1000
FIRST_TGID: Final = 10_000
_PAGE: Final = 4096
_ATTEMPTS: Final = 12
_CANDIDATES: Final = 4
_SAMPLES: Final = 6
_SIZES: Final = (
    *("anon", "file", "shmem", "kernel", "sock", "slab_reclaimable", "swap"),
    *("unevictable", "inactive_anon", "active_anon"),
)


@dataclass(frozen=True, slots=True)
class Restarts:
    """`lives` lives, by turns in each of `cgroups` below `/pods`.

    With as many cgroups as lives, each cgroup is made for one life. `killed_for` is the limit that ends a
    life: that of its own cgroup, or that of `/pods`; with None it just ends. `charges` and `folios` are the
    rows of `charge` and `pagecache` for a life, `gap_ns` is the time from the start of one to the start of
    the next. With `container`, all cgroups are lives of the container of that name, and have its path one
    after the other.
    """

    lives: int
    cgroups: int = 1
    killed_for: Literal["own", "parent"] | None = "own"
    charges: int = 200
    folios: int = 100
    gap_ns: int = LIFE_NS
    container: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the trace into `folder` as a recorder leaves it, and return `folder`."""
        folder.mkdir(mode=0o700)
        for name in ("meta.json", "stacks.parquet"):
            shutil.copy(LIKE / name, folder)
        lives = [self._life(number) for number in range(self.lives)]
        tables = {name: pa.concat_tables([life[name] for life in lives]) for name in lives[0]}
        for name, table in (tables | {"cgroups": self._cgroups()}).items():
            pq.write_table(table, folder / f"{name}.parquet")
        return folder

    def _cgroups(self) -> pa.Table:
        begins = START_NS + self.gap_ns * np.arange(self.cgroups)
        times = (begins, begins + LIFE_NS) if self.cgroups == self.lives else (None, None)
        created, removed = (None if moments is None else [None, *moments.tolist()] for moments in times)
        return table_of(
            "cgroups",
            self.cgroups + 1,
            cgroup_id=[PARENT_ID, *range(FIRST_ID, FIRST_ID + self.cgroups)],
            path=["/pods", *(self._path(number) for number in range(self.cgroups))],
            created=created,
            removed=removed,
            container=[None, *[self.container] * self.cgroups],
            container_id=[None, *[self.container and CONTAINER_ID] * self.cgroups],
        )

    def _path(self, cgroup: int) -> str:
        return f"/pods/one-{cgroup}" if self.container is None else f"/pods/{CONTAINER_ID}"

    def _life(self, number: int) -> dict[str, pa.Table]:
        own = number % self.cgroups
        life = Life(
            number=number,
            begin=START_NS + number * self.gap_ns,
            cgroup_id=FIRST_ID + own,
            owner_id=PARENT_ID if self.killed_for == "parent" else FIRST_ID + own,
            paths=(self._path(own), "/pods" if self.killed_for == "parent" else self._path(own)),
        )
        tables = life.tables(self.charges, self.folios)
        return tables if self.killed_for is None else tables | life.end()


@dataclass(frozen=True, slots=True)
class Life:
    """One life. `paths` are those of its cgroup and of the cgroup whose limit ends it (`owner_id`)."""

    number: int
    begin: int
    cgroup_id: int
    owner_id: int
    paths: tuple[str, str]

    @property
    def tgid(self) -> int:
        return FIRST_TGID + self.number

    def tables(self, charges: int, folios: int) -> dict[str, pa.Table]:
        begin, who = self.begin, {"cgroup_id": self.cgroup_id, "tgid": self.tgid}
        return {
            "charge": self._charges(charges),
            "pagecache": self._folios(folios),
            "reclaim": self._attempts(),
            "samples": self._samples(),
            "stalls": table_of(
                "stalls",
                2,
                **who,
                pid=self.tgid,
                time=[begin + LIFE_NS * 3 // 5, begin + LIFE_NS * 3 // 4],
                duration_ns=[20_000_000, 7_000_000],
                kind=["dirty", "swap_in"],
            ),
            "code_samples": table_of(
                "code_samples",
                3,
                **who,
                tid=self.tgid,
                time=_moments(begin, 3),
                category="anon",
                bytes=1 << 20,
                stack_id=[1, 2, 1],
                kernel_stack_id=1,
                mapping=None,
            ),
            "tasks": table_of(
                "tasks",
                1,
                **who,
                start_ns=self.number + 1,
                comm=f"worker-{self.number}",
                first_seen=begin,
                exited=begin + KILLED_NS + 1_000_000,
            ),
        }

    def _charges(self, rows: int) -> pa.Table:
        """Return charges of cache up to the limit, of anon in its place, and the end of all."""
        count = rows - 2
        row, piece = np.arange(count), LIMIT_BYTES // (count // 2) // _PAGE * _PAGE
        is_evicted = (row >= count // 2) & (row % 2 == 0)
        # In the second half every other row is of cache, so each is of two pieces: no cache is left at the
        # kill.
        amounts = np.where(row < count // 2, piece, np.where(is_evicted, -2 * piece, 2 * piece))
        kinds = np.where((row < count // 2) | is_evicted, "file", "anon")
        left = [-int(amounts[kinds == kind].sum()) for kind in ("anon", "file")]
        amounts, kinds = np.append(amounts, left), np.append(kinds, ["anon", "file"])
        return table_of(
            "charge",
            rows,
            time=np.append(_moments(self.begin, count), [self.begin + LIFE_NS * 9 // 10] * 2),
            cgroup_id=self.cgroup_id,
            tgid=self.tgid - (np.arange(rows) % 11 == 0),
            category=kinds,
            pages=amounts // _PAGE,
            bytes=amounts,
            usage_bytes=np.clip(np.cumsum(amounts), 0, LIMIT_BYTES),
            limit_bytes=LIMIT_BYTES,
        )

    def _folios(self, rows: int) -> pa.Table:
        """Return folios of 16 pages, of which every eighth is refaulted."""
        row, half = np.arange(rows), rows // 2
        is_add, index = (row < half) | (row % 8 == 7), row % half * 16
        return table_of(
            "pagecache",
            rows,
            time=_moments(self.begin, rows),
            cgroup_id=self.cgroup_id,
            tgid=self.tgid,
            task_cgroup_id=self.cgroup_id,
            op=np.where(is_add, "add", "delete"),
            cause=np.where(is_add, "read", "reclaim_memcg"),
            inode_id=7 + self.number % 64,
            index=np.where(row % 8 == 7, np.roll(index, 1), index),
            nr_pages=16,
        )

    def _attempts(self) -> pa.Table:
        left = np.arange(_ATTEMPTS)[::-1]
        return table_of(
            "reclaim",
            _ATTEMPTS,
            time=_moments(self.begin, 2 * _ATTEMPTS + 1)[_ATTEMPTS:-1],
            duration_ns=2_000_000,
            kind="memcg",
            target_source="limit",
            cgroup_id=self.owner_id,
            task_cgroup_id=self.cgroup_id,
            tgid=self.tgid,
            pid=self.tgid,
            scanned=400,
            scanned_file=400,
            reclaimed=left * 32,
            reclaimed_file=left * 32,
            priority=left,
            usage_bytes=LIMIT_BYTES,
            limit_bytes=LIMIT_BYTES,
        )

    def _samples(self) -> pa.Table:
        step = np.arange(_SAMPLES)
        return table_of(
            "samples",
            _SAMPLES,
            **{f"{name}_bytes": 0 for name in _SIZES},
            time=_moments(self.begin, _SAMPLES),
            cgroup_id=[self.cgroup_id, PARENT_ID] * (_SAMPLES // 2),
            source="periodic" if self.number else "start",
            usage_bytes=step * (LIMIT_BYTES // _SAMPLES),
            limit_bytes=LIMIT_BYTES,
            swap_limit_bytes=LIMIT_BYTES,
            swappiness=60,
            active_file_bytes=step * _PAGE,
            file_dirty_bytes=step * _PAGE,
            workingset_refault_file=self.number * 100 + step,
            pgsteal=self.number * 1000 + step,
            max_events=self.number + step,
        )

    def end(self) -> dict[str, pa.Table]:
        kill_ns, pids = self.begin + KILLED_NS, self.tgid - np.arange(_CANDIDATES)
        of_kill = {"kill_id": self.number + 1, "cgroup_id": self.cgroup_id}
        oom = table_of(
            "oom",
            1,
            **of_kill,
            **dict.fromkeys(("pid", "tgid", "trigger_pid", "trigger_tgid"), self.tgid),
            **dict.fromkeys(("comm", "trigger_comm"), f"worker-{self.number}"),
            **dict.fromkeys(("file_rss_bytes", "shmem_rss_bytes", "swap_bytes"), 0),
            **dict.fromkeys(("pgtables_bytes", "exec_vm_bytes", "stack_vm_bytes"), _PAGE),
            **dict.fromkeys(("usage_bytes", "limit_bytes", "data_vm_bytes"), LIMIT_BYTES),
            time=kill_ns,
            ktime_ns=kill_ns - START_NS,
            constraint="memcg",
            limit_owner_cgroup_id=self.owner_id,
            trigger_cgroup_id=self.cgroup_id,
            is_told=False,
            gfp=0xCC0,
            **_stacks_of_a_trigger(),
            anon_rss_bytes=LIMIT_BYTES // 2,
            total_vm_bytes=2 * LIMIT_BYTES,
            threads=1,
        )
        candidates = table_of(
            "oom_candidates",
            _CANDIDATES,
            **of_kill,
            time=kill_ns - 100,
            pid=pids,
            tgid=pids,
            comm="worker",
            badness=30_000 - 7 * np.arange(_CANDIDATES),
            rss_bytes=LIMIT_BYTES // 2,
            chosen=pids == self.tgid,
        )
        return {"oom": oom, "oom_candidates": candidates, "kernel_log": self._log(kill_ns)}

    def _log(self, kill_ns: int) -> pa.Table:
        """Return the report of the recorded example, with this process and these cgroups."""
        rows = pq.read_table(LIKE / "kernel_log.parquet", columns=["ktime_ns", "text"]).to_pylist()
        text = "\n".join(row["text"] for row in rows)
        pid = text.rpartition("Killed process ")[2].split()[0]
        path = text.rpartition("task_memcg=")[2].partition(",")[0]
        own, owner = self.paths
        text = text.replace(f"task_memcg={path}", f"task_memcg={own}").replace(path, owner)
        texts = text.replace(pid, str(self.tgid)).split("\n")
        return table_of(
            "kernel_log",
            len(texts),
            time=kill_ns,
            ktime_ns=kill_ns - START_NS + 1000 * np.arange(len(texts)),
            sequence=self.number * len(texts) + np.arange(len(texts)),
            level=4,
            text=texts,
        )


@cache
def _stacks_of_a_trigger() -> dict[str, int]:
    """Return the stacks of the trigger in the recorded example, whose `stacks` the trace has."""
    names = ["kernel_stack_id", "user_stack_id"]
    (first,) = pq.read_table(LIKE / "oom.parquet", columns=names).slice(0, 1).to_pylist()
    return dict(first)


def _moments(begin: int, count: int) -> Any:
    """Return `count` moments from the start of a life to its kill."""
    return begin + np.linspace(0, KILLED_NS, count, dtype=np.int64)
