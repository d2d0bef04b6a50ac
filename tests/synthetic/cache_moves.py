"""Large traces of page cache that comes and goes at random, made without a kernel: the worst case of reading.

Several processes of several cgroups read many files at random places, in runs of few pages, and reclaim
takes the pages in other runs, so that hardly any two runs have the same pages.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic.unset import table_of

from tracer.schema import TABLES
from tracer.trace.write.writer import PART_ROWS

_LIKE: Final = Path(__file__).parents[2] / "traces" / "page-cache"
_START_NS: Final = 1_764_000_000_000_000_000
_GAP_NS: Final = 20_000
_MOST_FOLIOS: Final = 8
_FIRST_CGROUP: Final = 1000
_FIRST_TGID: Final = 10_000
_FIRST_INODE: Final = 1 << 40
_CAUSES: Final = ("read", "readahead", "fault", "write", "reclaim_memcg", "reclaim_kswapd", "truncate")
_ADDS: Final = 4


@dataclass(frozen=True, slots=True)
class CacheMoves:
    """`rows` runs of `files` files, each of `file_pages` pages, by `tasks` processes in `cgroups` cgroups.

    A run has one folio or, in `share_of_runs` of all rows, up to eight, `folio_ns` apart. Half of the rows
    are additions. Half of the cgroups are removed before the trace ends, and every eighth pid is used again.
    """

    rows: int = 10_000_000
    files: int = 10_000
    file_pages: int = 200
    tasks: int = 16
    cgroups: int = 4
    share_of_runs: float = 0.3
    folio_ns: int = 2_000
    seed: int = 1

    def write(self, folder: Path) -> Path:
        """Write the trace into `folder` as a recorder leaves it, and return `folder`."""
        folder.mkdir(mode=0o700)
        (folder / "pagecache").mkdir()
        for name in ("meta.json", "stacks.parquet"):
            shutil.copy(_LIKE / name, folder)
        for number, part in enumerate(self.parts(), start=1):
            pq.write_table(part, folder / "pagecache" / f"{number:06}.parquet", compression="zstd")
        for name, table in self._names().items():
            pq.write_table(table, folder / f"{name}.parquet")
        return folder

    def parts(self) -> Iterator[pa.Table]:
        """Yield the rows of `pagecache`, as many at a time as a part of a trace has."""
        random = np.random.default_rng(self.seed)
        for first in range(0, self.rows, PART_ROWS):
            yield self._part(random, np.arange(first, min(first + PART_ROWS, self.rows)))

    def _part(self, random: np.random.Generator, row: np.ndarray) -> pa.Table:
        count = len(row)
        is_run = random.random(count) < self.share_of_runs
        folios = np.where(is_run, random.integers(2, _MOST_FOLIOS + 1, count), 1)
        cause = random.integers(0, _ADDS, count)
        cause = np.where(random.random(count) < 0.5, cause, _ADDS + cause % (len(_CAUSES) - _ADDS))
        task = random.integers(0, self.tasks, count)
        file = random.integers(0, self.files, count)
        return table_of(
            "pagecache",
            count,
            time=_START_NS + row * _GAP_NS,
            **{
                name: column
                for name, column in (("duration_ns", (folios - 1) * self.folio_ns), ("folios", folios))
                if name in TABLES["pagecache"].names
            },
            cgroup_id=_FIRST_CGROUP + random.integers(0, self.cgroups, count),
            task_cgroup_id=_FIRST_CGROUP + task % self.cgroups,
            tgid=_FIRST_TGID + task,
            op=pa.array(["add", "delete"]).take(pa.array((cause >= _ADDS).astype(np.int8))),
            cause=pa.array(_CAUSES).take(pa.array(cause)),
            inode_id=_FIRST_INODE + file * 12345,
            ino=100 + file,
            dev=8 << 20,
            index=random.integers(0, self.file_pages, count),
            nr_pages=folios,
        )

    def _names(self) -> dict[str, pa.Table]:
        end_ns = _START_NS + self.rows * _GAP_NS
        cgroup, task, file = (np.arange(count) for count in (self.cgroups, self.tasks, self.files))
        reused = np.concatenate([task, task[::8]])
        again = np.arange(len(reused)) >= self.tasks
        return {
            "cgroups": table_of(
                "cgroups",
                self.cgroups,
                cgroup_id=_FIRST_CGROUP + cgroup,
                path=[f"/pods/one-{number}" for number in cgroup],
                removed=[_START_NS + (end_ns - _START_NS) // 3 if number % 2 else None for number in cgroup],
            ),
            "tasks": table_of(
                "tasks",
                len(reused),
                tgid=_FIRST_TGID + reused,
                start_ns=1 + np.arange(len(reused)),
                comm=[
                    f"reader-{number}{'-again' if is_again else ''}"
                    for number, is_again in zip(reused, again, strict=True)
                ],
                cgroup_id=_FIRST_CGROUP + reused % self.cgroups,
                first_seen=np.where(again, (_START_NS + end_ns) // 2, _START_NS),
            ),
            "inodes": table_of(
                "inodes",
                self.files,
                inode_id=_FIRST_INODE + file * 12345,
                dev="8:0",
                ino=100 + file,
                path=[f"/data/{number}" for number in file],
                fs_type="ext4",
            ),
        }
