"""What the decoder remembers between records is bounded: a flight recorder runs for years."""

from __future__ import annotations

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import MOST_CARRIED, MOST_KILLS, PAGE_BYTES, Decoder
from tracer.enumerations import CATEGORY
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STREAM_AT


def charged(cgroup_ids: list[int], delta_bytes: int) -> Records:
    """Return a record for each cgroup, with a change of a category that the kernel counts in bytes."""
    records = np.zeros(len(cgroup_ids), WIRE["charge"])
    records["cgroup_id"] = cgroup_ids
    records["delta_bytes"][:, CATEGORY.number("slab_reclaimable")] = delta_bytes
    return records


def pages(decoder: Decoder, cgroup_ids: list[int], delta_bytes: int) -> list[int]:
    rows = decoder.rows(STREAM_AT["charge"], charged(cgroup_ids, delta_bytes))
    listed: list[int] = rows.column("pages").to_pylist()
    return listed


def test_fraction_of_a_page_is_forgotten_after_thousands_of_other_cgroups() -> None:
    decoder = Decoder(0)
    pages(decoder, list(range(1, MOST_CARRIED + 2)), 1)
    assert pages(decoder, [1, 2, MOST_CARRIED + 1], PAGE_BYTES - 1) == [0, 0, 1]


def test_cgroup_without_a_fraction_of_a_page_takes_no_place() -> None:
    decoder = Decoder(0)
    pages(decoder, [1], 1)
    pages(decoder, list(range(2, 2 * MOST_CARRIED)), PAGE_BYTES)
    assert pages(decoder, [1], PAGE_BYTES - 1) == [1]


def test_cgroup_that_changes_keeps_its_fraction_of_a_page() -> None:
    decoder = Decoder(0)
    for first in range(2, 2 * MOST_CARRIED, 1000):
        pages(decoder, [1], 1)
        pages(decoder, list(range(first, first + 1000)), 1)
    changes = len(range(2, 2 * MOST_CARRIED, 1000))
    assert pages(decoder, [1], PAGE_BYTES - changes) == [1]


def test_decisions_are_forgotten_after_thousands_of_others_and_no_number_is_given_twice() -> None:
    decoder = Decoder(0)
    record = np.zeros(1, WIRE["oom"])[0]
    numbers = []
    for invocation in (*range(MOST_KILLS + 1), MOST_KILLS, 0):
        record["invocation"] = invocation
        numbers.append(decoder.kill_id(record))
    assert numbers == [*range(1, MOST_KILLS + 2), MOST_KILLS + 1, MOST_KILLS + 2]
