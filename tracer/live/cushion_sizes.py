"""The cushion of a cgroup in a sample: what may still be charged before the OOM killer must come.

It is the room below the effective limit, and the memory that reclaim can free:

* page cache: the pages on the LRU lists of files. Locked pages and shmem are not on these lists. Reclaim
  isolates pages from the lists for a moment, so at least file - shmem - unevictable counts. Dirty cache and
  cache under writeback count: they can go once they are written. A database at its limit has such cache all
  the time, so a kill because writeback is late (v1) is not foreseen. The share of the cache that memory.min
  of the children protects does not count;
* half of the reclaimable slab: objects in use stay, and no counter shows them;
* anonymous memory and shmem, as far as there is room in swap.

On v1 the limit of memory + swap bounds the cushion as well. The statistics in a sample may be older than its
usage, by at most the updates that do not yet make a reader of memory.stat flush the statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tracer.live.sample_arrays import UNKNOWN, Flags, Numbers, at_least_0, limits, values
from tracer.schema import UNLIMITED_BYTES


class Cushions(NamedTuple):
    """A cushion for each row, in bytes, and its parts. `is_known` is false if there is no limit, or if the
    sample has no statistics."""

    left: Numbers
    room: Numbers
    cache: Numbers
    limit: Numbers
    is_known: Flags


def cushions(samples: pa.RecordBatch, free_swap_bytes: int) -> Cushions:
    """Return the cushions of these samples on a machine with so much free swap."""
    usage, file = values(samples, "usage_bytes"), values(samples, "file_bytes")
    limit = limits(samples, "effective_limit_bytes")
    limit = np.minimum(limit, limits(samples, "limit_bytes"))
    room = np.maximum(limit - usage, 0)
    cache = _cache(samples, file, usage)
    freed = cache + at_least_0(samples, "slab_reclaimable_bytes") // 2
    left = room + freed
    if free_swap_bytes:
        swap_room = limits(samples, "swap_room_bytes")
        is_v1 = values(samples, "soft_limit_bytes") != UNKNOWN
        anon = at_least_0(samples, "inactive_anon_bytes") + at_least_0(samples, "active_anon_bytes")
        to_swap = np.minimum(anon, free_swap_bytes)
        left += np.where(is_v1, to_swap, np.minimum(to_swap, swap_room))
        left = np.where(is_v1, np.minimum(left, np.minimum(swap_room, UNLIMITED_BYTES // 2) + freed), left)
    is_known = (limit < UNLIMITED_BYTES) & (usage != UNKNOWN) & (file != UNKNOWN)
    return Cushions(left, room, cache, limit, is_known)


def _cache(samples: pa.RecordBatch, file: Numbers, usage: Numbers) -> Numbers:
    """Return the page cache that reclaim can free, in bytes."""
    listed = at_least_0(samples, "inactive_file_bytes") + at_least_0(samples, "active_file_bytes")
    unlocked = file - at_least_0(samples, "shmem_bytes") - at_least_0(samples, "unevictable_bytes")
    cache: Numbers = np.minimum(np.maximum(listed, unlocked), np.maximum(usage, 0))
    return cache - _protected(samples, cache, usage)


def _protected(samples: pa.RecordBatch, cache: Numbers, usage: Numbers) -> Numbers:
    """Return the protected part of the cache. The kernel does not count protection by kind of memory, so the
    cache gets its share of usage."""
    protected = at_least_0(samples, "protected_bytes")
    if not protected.any():
        return protected
    return (cache * np.minimum(protected / np.maximum(usage, 1), 1)).astype(np.int64)
