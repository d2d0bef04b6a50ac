"""Maps in the running kernel, of each type that user space reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tracer.capture.bpf import syscall
from tracer.capture.bpf.compiled.object_file import MapDefinition
from tracer.capture.bpf.load import Programs, _possible_cpus
from tracer.capture.bpf.maps import Map
from tracer.capture.bpf.readings import stack_at
from tracer.capture.bpf.syscall import MapSizes, map_sizes
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

HASH, ARRAY, PERCPU_ARRAY = 1, 2, 6
PAIR = json.dumps(
    ["pair", [["low", "unsigned int"], ["high", "signed char"], ["rest", "char", [3]]], "struct"]
)
CPUS = _possible_cpus()


@contextmanager
def new_map(kind: int, key: str, value: str, sizes: tuple[int, int], entries: int = 3) -> Iterator[Map]:
    one = Map(MapDefinition("test", kind, *sizes, entries, 0, key, value), CPUS)
    try:
        yield one
    finally:
        os.close(one.fd)


def test_hash_map_sets_reads_lists_and_deletes() -> None:
    with new_map(HASH, '"unsigned long long"', PAIR, (8, 8)) as table:
        with pytest.raises(KeyError):
            table[5]
        value = table.value_type(low=7, high=-3)
        for key in (5, 2**64 - 1):
            table[key] = value
        assert sorted((key.value, pair.low, pair.high) for key, pair in table.items()) == [
            (5, 7, -3),
            (2**64 - 1, 7, -3),
        ]
        table[5] = table.value_type(low=8)
        assert (table[5].low, table[5].high, table[2**64 - 1].low) == (8, 0, 7)
        table[6] = value
        with pytest.raises(OSError, match="Argument list too long"):  # E2BIG: the map is full
            table[7] = value
        assert (table.delete(5), table.delete(5)) == (True, False)
        assert sorted(key.value for key, _ in table.items()) == [6, 2**64 - 1]


def test_key_type_of_a_structure_has_its_fields() -> None:
    with new_map(HASH, PAIR, '"long long"', (8, 8)) as table:
        assert list(table.items()) == []
        assert table.key_type._fields_[0][0] == "low"


@pytest.mark.parametrize(("kind", "bytes_"), [(PERCPU_ARRAY, 4), (PERCPU_ARRAY, 8)])
def test_per_cpu_map_returns_a_value_for_each_cpu(kind: int, bytes_: int) -> None:
    """Each CPU's value is aligned to 8 bytes, smaller ones as well."""
    name = {4: "unsigned int", 8: "unsigned long long"}[bytes_]
    with new_map(kind, '"int"', json.dumps(name), (4, bytes_), 2) as table:
        assert [value.value for value in table[1]] == [0] * CPUS


@pytest.mark.parametrize("kind", [ARRAY, PERCPU_ARRAY])
def test_element_reads_the_present_value(kind: int) -> None:
    with new_map(kind, '"int"', PAIR, (4, 8), 2) as table:
        element = table.element(1)
        for low in (7, 8):
            pairs = (table.value_type * CPUS)(*[(low + cpu, -1) for cpu in range(CPUS)])
            syscall.update_element(table.fd, table.key_type(1), pairs)
            found = element.read() if kind == PERCPU_ARRAY else [element.read()]
            assert [(pair.low, pair.high) for pair in found] == [
                (pair.low, pair.high) for pair in pairs[: len(found)]
            ]


def test_value_type_of_another_size_than_the_kernels_raises() -> None:
    with (
        new_map(ARRAY, '"int"', PAIR, (4, 16)) as table,
        pytest.raises(AssertionError, match="16 in the kernel"),
    ):
        table[0]


def test_map_sizes_are_those_of_the_kernel() -> None:
    with new_map(HASH, '"int"', PAIR, (4, 8), 9) as table:
        assert map_sizes(table.fd) == MapSizes(HASH, 4, 8, 9, 0)


def test_maps_of_the_programs_have_the_types_of_the_sources() -> None:
    """Every map is created, and the structures that user space reads have named fields."""
    with closing(Programs(version=memory_hierarchy().version)) as programs:
        programs.wait(pytest.fail)
        names = {definition.name for definition in programs._loaded._object.maps}
        assert {"roots", "residue", "calibration", "oom_ring", "stacks", "watched_ring"} <= names
        assert len({programs.map(name).fd for name in names}) == len(names)
        programs.map("roots")[77] = 1
        assert [(key.value, value.value) for key, value in programs.map("roots").items()] == [(77, 1)]
        assert len(programs.map("slices")[0]) == programs.cpus
        assert len(programs.map("lost")[0]) == programs.cpus
        assert [name for name, _ in programs.map("page_sums").key_type._fields_][:1] == ["cgroup_id"]
        assert stack_at(programs, 12) == []
