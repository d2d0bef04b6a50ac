"""Rows of `shmem_files`: the files of shared memory of the processes whose shared memory grew."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.enumerations import CATEGORY
from tracer.kernel.process.shared_files import SharedFile, SharedFiles

_SHMEM: Final = CATEGORY.number("shmem")
_LEAST_GROWTH_BYTES: Final = 1 << 20
_GROWTH_DIVISOR: Final = 8
"""A cgroup is looked at again when its shared memory has grown by an eighth."""

_PROCESSES_KEPT: Final = 8
_CGROUPS_KEPT: Final = 4096
_FILES_KEPT: Final = 64

_Key = tuple[tuple[int, int], int]  # device, inode number


@dataclass
class _Grown:
    """The shared memory of a cgroup since the recording began, its growth since the last look, the processes
    that were charged for it last, and the files on tmpfs that were seen, each with a process that had it."""

    level_bytes: int = 0
    unseen_bytes: int = 0
    tgids: OrderedDict[int, None] = field(default_factory=OrderedDict)
    on_tmpfs: dict[_Key, tuple[int, SharedFile]] = field(default_factory=dict)


class ShmemRows:
    """Looks at the files of shared memory when the ledger shows that the shared memory of a cgroup has grown.

    `files` are read from /proc at most once for each eighth by which the cgroup grows. So a row can be older
    than the file's last growth, but not by much.
    """

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        self._cgroups: OrderedDict[int, _Grown] = OrderedDict()

    def take(
        self, charges: Records, clock_offset_ns: int, *, is_at_kill: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Take records of `charge`; yield rows of the looks due: at a kill, at each cgroup with growth."""
        grown = charges["delta_bytes"][:, _SHMEM]
        for row in np.flatnonzero(grown).tolist():
            self._add(int(charges["cgroup_id"][row]), int(charges["tgid"][row]), int(grown[row]))
        for cgroup_id, cgroup in self._cgroups.items() if grown.any() or is_at_kill else ():
            due = max(_LEAST_GROWTH_BYTES, cgroup.level_bytes // _GROWTH_DIVISOR)
            if cgroup.unseen_bytes >= (1 if is_at_kill else due):
                cgroup.unseen_bytes = 0
                yield from self._look(cgroup_id, cgroup, clock_offset_ns)

    def _add(self, cgroup_id: int, tgid: int, bytes_: int) -> None:
        cgroup = self._cgroups.setdefault(cgroup_id, _Grown())
        self._cgroups.move_to_end(cgroup_id)
        if len(self._cgroups) > _CGROUPS_KEPT:
            self._cgroups.popitem(last=False)
        cgroup.level_bytes += bytes_
        if bytes_ > 0 and tgid:
            cgroup.unseen_bytes += bytes_
            cgroup.tgids[tgid] = None
            cgroup.tgids.move_to_end(tgid)
            if len(cgroup.tgids) > _PROCESSES_KEPT:
                cgroup.tgids.popitem(last=False)

    def _look(self, cgroup_id: int, cgroup: _Grown, clock_offset_ns: int) -> Iterator[dict[str, Any]]:
        seen: dict[_Key, tuple[int, SharedFile]] = {}
        for tgid in reversed(cgroup.tgids):
            for file in self._files.of_process(tgid):
                seen.setdefault((file.device, file.inode), (tgid, file))
        for key, (tgid, known) in cgroup.on_tmpfs.items():
            if key not in seen and (now := self._files.named(known)) is not None:
                seen[key] = (tgid, now)
        on_tmpfs = [(key, one) for key, one in seen.items() if one[1].kind == "tmpfs"]
        cgroup.on_tmpfs = dict(on_tmpfs[:_FILES_KEPT])
        for tgid, file in seen.values():
            if file.held_bytes or file.is_mapped:
                yield {
                    "time": time.monotonic_ns() + clock_offset_ns,
                    "cgroup_id": cgroup_id,
                    "tgid": tgid,
                    "kind": file.kind,
                    "name": file.name,
                    "dev": "{}:{}".format(*file.device),
                    "ino": file.inode,
                    "size_bytes": file.size_bytes,
                    "held_bytes": file.held_bytes,
                    "is_mapped": file.is_mapped,
                }
