from __future__ import annotations

from typing import Any

import pytest
from synthetic.sample_series import MIB, batch

from tracer.live.cushion_sizes import cushions
from tracer.schema import UNLIMITED_BYTES

V1 = {"soft_limit_bytes": UNLIMITED_BYTES}


def left_of(free_swap: int = 0, **sizes: Any) -> float | None:
    """Return the cushion in MiB of a cgroup with a limit of 100 MiB, a usage of 90 and nothing else."""
    given = {"usage": 90, "limit": 100, "effective_limit": 100, "file": 0} | sizes
    columns = {
        name if name.endswith("_bytes") else f"{name}_bytes": size if name.endswith("_bytes") else size * MIB
        for name, size in given.items()
        if size is not None
    }
    found = cushions(batch(1, time=0, cgroup_id=7, **columns), free_swap * MIB)
    return float(found.left[0]) / MIB if found.is_known[0] else None


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ({"anon": 90}, 10),
        ({"file": 40, "inactive_file": 30, "active_file": 10}, 50),
        ({"file": 40, "inactive_file": 30, "active_file": 10, "file_dirty": 20}, 50),
        ({"file": 40, "shmem": 40, "inactive_anon": 40}, 10),
        ({"file": 40, "unevictable": 40}, 10),
        ({"file": 40, "shmem": 10, "unevictable": 5}, 35),  # no page on the lists: reclaim isolated them
        ({"file": 0, "inactive_file": 20}, 30),  # MADV_FREE
        ({"slab_reclaimable": 40}, 30),
        ({"file": 80, "inactive_file": 80, "protected": 45}, 50),
        ({"effective_limit": 95}, 5),
        ({"usage": 101}, 0),
    ],
)
def test_cushion_is_the_room_and_what_reclaim_can_free(sizes: dict[str, int], left: float) -> None:
    assert left_of(**sizes) == left


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ({"swap_room": 1000}, 70),
        ({"swap_room": 15}, 25),
        ({"swap_room_bytes": UNLIMITED_BYTES}, 70),
        ({}, 70),  # swap is not counted here
        ({"free_swap": 7, "swap_room": 1000}, 17),
        ({"free_swap": 0, "swap_room": 1000}, 10),
        ({"swap_room": 0}, 10),
        ({"swap_room": 1000} | V1, 70),
        ({"swap_room": 12} | V1, 12),  # of memory and swap together
        ({"swap_room": 12, "file": 5, "inactive_file": 5} | V1, 17),
        (V1, 70),
    ],
)
def test_anonymous_memory_counts_as_far_as_swap_has_room(sizes: dict[str, Any], left: float) -> None:
    assert left_of(**{"free_swap": 1000, "inactive_anon": 50, "active_anon": 10} | sizes) == left


@pytest.mark.parametrize(
    "sizes",
    [
        {"limit_bytes": UNLIMITED_BYTES, "effective_limit_bytes": UNLIMITED_BYTES, "limit": None}
        | {"effective_limit": None},
        {"limit": None, "effective_limit": None},
        {"usage": None},
        {"file": None},
    ],
)
def test_cushion_without_a_limit_or_statistics_is_not_known(sizes: dict[str, Any]) -> None:
    assert left_of(**sizes) is None
