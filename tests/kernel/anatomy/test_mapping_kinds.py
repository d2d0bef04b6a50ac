"""Kinds of mappings, by their names and their places among the others."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.anatomy.mapping_kinds import KINDS, Group, folded, groups
from tracer.kernel.anatomy.smaps import Mapping

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ARENA = 64 * MIB
AT = 0x7F0000000000  # aligned to 64 MiB
GO = 0xC000000000


def anon(start: int, size: int, permissions: str = "rw-p", name: bytes = b"", **more: bool) -> Mapping:
    held = 0 if permissions == "---p" else size
    return Mapping(start, start + size, permissions, 0, name, held, held, held, 0, **more)


def of_file(start: int, size: int, name: bytes, permissions: str = "r-xp", own: int = 0) -> Mapping:
    return Mapping(start, start + size, permissions, 7, name, size, size, own, 0)


def found(*mappings: Mapping, sps: Collection[int] = ()) -> list[tuple[str, bytes, int, int]]:
    return [(one.kind, one.name, one.count, one.rss_bytes) for one in groups(mappings, sps)]


@pytest.mark.parametrize(
    ("mapping", "kind", "name"),
    [
        (anon(AT, MIB, name=b"[heap]"), "heap", b""),
        (anon(AT, MIB, name=b"[stack]"), "stack", b"main"),
        (anon(AT, MIB), "anonymous", b""),
        (anon(AT, MIB, name=b"[anon:cache]"), "anonymous", b"cache"),
        (anon(AT, MIB, "rwxp"), "code", b""),
        (anon(AT, MIB, "r-xp", b"[vdso]"), "other", b"[vdso]"),
        (of_file(AT, MIB, b"/bin/a"), "file", b"/bin/a"),
        (of_file(AT, MIB, b"/dev/shm/a", "rw-s"), "shared", b"/dev/shm/a"),
        (of_file(AT, MIB, b"/memfd:java_heap", "rw-s"), "java heap", b""),
    ],
)
def test_mapping_alone_has_its_kind(mapping: Mapping, kind: str, name: bytes) -> None:
    assert found(mapping) == [(kind, name, 1, MIB)]


def test_written_pages_of_a_private_file_are_copies() -> None:
    (copy, file) = groups([of_file(AT, 9 * MIB, b"/data", "rw-p", own=7 * MIB)])
    assert (copy.kind, copy.rss_bytes, copy.anon_bytes) == ("file copy", 7 * MIB, 7 * MIB)
    assert (file.kind, file.rss_bytes, file.anon_bytes) == ("file", 2 * MIB, 0)


def test_threads_in_the_kernel_show_their_stacks() -> None:
    stacks = [anon(AT + number * 2 * MIB, MIB) for number in range(3)]
    pointers = [one.end - 100 for one in stacks[:2]]
    assert found(*stacks, sps=pointers) == [("stack", b"", 2, 2 * MIB), ("anonymous", b"", 1, MIB)]


def test_two_stacks_in_one_mapping_are_two() -> None:
    assert found(anon(AT, 2 * MIB), sps=[AT + 100, AT + MIB + 100]) == [("stack", b"", 2, 2 * MIB)]


def test_thread_that_runs_is_known_by_the_guard_below_its_stack() -> None:
    guard = anon(AT, 4 * KIB, "---p", is_small_paged=True)
    stack = anon(AT + 4 * KIB, MIB, is_small_paged=True)
    assert found(guard, stack) == [("stack", b"", 1, MIB)]
    assert found(guard, stack._replace(is_small_paged=False)) == [("anonymous", b"", 1, MIB)]
    assert found(guard._replace(is_small_paged=False), stack) == [("anonymous", b"", 1, MIB)]
    assert found(stack) == [("anonymous", b"", 1, MIB)]


def test_thread_that_runs_is_known_by_the_size_of_other_stacks() -> None:
    def pair(start: int, size: int) -> list[Mapping]:
        return [anon(start, 4 * KIB, "---p"), anon(start + 4 * KIB, size - 4 * KIB)]

    waits, runs, other = pair(AT, MIB), pair(AT + 4 * MIB, MIB), pair(AT + 8 * MIB, 2 * MIB)
    kinds = found(*waits, *runs, *other, sps=[AT + 9000])
    assert sorted(kinds) == [
        ("anonymous", b"", 1, 2 * MIB - 4 * KIB),
        ("stack", b"", 2, 2 * MIB - 8 * KIB),
    ]


def test_arena_has_64_mib_of_addresses() -> None:
    first = [anon(AT, 3 * MIB), anon(AT + 3 * MIB, ARENA - 3 * MIB, "---p")]
    full = [anon(AT + ARENA, ARENA)]
    assert found(*first, *full) == [("arena", b"", 2, ARENA + 3 * MIB)]
    assert found(*full) == [("anonymous", b"", 1, ARENA)], "nothing shows that this is an arena"


def test_full_arena_and_the_next_one_may_be_one_mapping() -> None:
    both = [anon(AT, ARENA + 3 * MIB), anon(AT + ARENA + 3 * MIB, ARENA - 3 * MIB, "---p")]
    assert found(*both) == [("arena", b"", 2, ARENA + 3 * MIB)]


def test_reserved_memory_that_is_no_arena_is_not_taken_for_one() -> None:
    for start, used, reserved in [
        (AT + MIB, 3 * MIB, ARENA - 4 * MIB),
        (AT, 3 * MIB, ARENA),
        (AT, 3 * MIB, 2 * ARENA - 3 * MIB),
    ]:
        pair = [anon(start, used), anon(start + used, reserved, "---p")]
        assert found(*pair) == [("anonymous", b"", 1, used)]


def test_go_heap_comes_before_stacks_and_arenas() -> None:
    heap = [anon(GO, 4 * MIB), anon(GO + 4 * MIB, ARENA - 4 * MIB, "---p")]
    assert found(*heap, anon(AT, MIB), sps=[GO + 100]) == [
        ("go heap", b"", 1, 4 * MIB),
        ("anonymous", b"", 1, MIB),
    ]
    elsewhere = anon(GO + ARENA, 4 * MIB)
    assert found(elsewhere, sps=[]) == [("anonymous", b"", 1, 4 * MIB)], "no heap begins at Go's address"


def test_java_heap_is_below_32_gib_of_a_virtual_machine() -> None:
    heap, metaspace = anon(28 * GIB, 40 * MIB), anon(32 * GIB, MIB)
    machine = of_file(AT, MIB, b"/opt/java/lib/server/libjvm.so")
    assert found(heap, metaspace, machine)[0] == ("java heap", b"", 1, 40 * MIB)
    assert ("anonymous", b"", 1, MIB) in found(heap, metaspace, machine)
    assert found(heap) == [("anonymous", b"", 1, 40 * MIB)]


@pytest.mark.parametrize("file", [b"/usr/bin/node", b"/usr/lib/x86_64-linux-gnu/libnode.so.115"])
def test_v8_heap_has_its_pages_at_random_addresses_of_node(file: bytes) -> None:
    pages = [anon(0x13FE6100000, 256 << 10), anon(0x3FF2BA6C0000, 3 * MIB)]
    code = anon(0x2D33CF40000, MIB, "r-xp")
    elsewhere = [anon(0x3FF2BA6C1000, MIB), anon(0x7FC7C0000000, 2 * MIB)]
    program = of_file(AT, MIB, file)
    assert set(found(*pages, code, *elsewhere, program)) == {
        ("v8 heap", b"", 2, 3 * MIB + (256 << 10)),
        ("code", b"", 1, MIB),
        ("anonymous", b"", 2, 3 * MIB),
        ("file", file, 1, MIB),
    }
    assert "v8 heap" not in {kind for kind, *_ in found(*pages, of_file(AT, MIB, b"/usr/bin/nodes"))}


def test_zeroed_data_of_node_is_no_page_of_v8() -> None:
    data = of_file(AT, MIB, b"/usr/bin/node", "rw-p", own=MIB)
    assert data.end % (256 << 10) == 0
    assert ("bss", b"/usr/bin/node", 1, 5 * MIB) in found(data, anon(data.end, 5 * MIB))


def test_memory_behind_the_data_of_the_program_is_its_bss() -> None:
    data = of_file(AT, MIB, b"/bin/a", "rw-p", own=MIB)
    assert ("bss", b"/bin/a", 1, 5 * MIB) in found(data, anon(data.end, 5 * MIB))
    assert ("anonymous", b"", 1, 5 * MIB) in found(data, anon(data.end + MIB, 5 * MIB))
    code = of_file(AT, MIB, b"/bin/a")
    assert ("anonymous", b"", 1, 5 * MIB) in found(code, anon(code.end, 5 * MIB))


def test_memory_behind_the_data_of_a_library_may_be_anything() -> None:
    """A Python program had 3.4 MiB "of zeroed data" behind a small extension module."""
    program = of_file(AT, MIB, b"/bin/a")._replace(inode=1)
    data = of_file(AT + 9 * MIB, MIB, b"/lib/b.so", "rw-p", own=MIB)._replace(inode=2)
    assert ("anonymous", b"", 1, 5 * MIB) in found(program, data, anon(data.end, 5 * MIB))


def test_small_groups_are_folded_by_kind() -> None:
    listed = groups([of_file(AT + number * GIB, number * MIB, b"/lib/%d" % number) for number in range(1, 9)])
    short = folded(listed, 3)
    assert [(one.name, one.count, one.rss_bytes // MIB) for one in short] == [
        *((b"/lib/%d" % number, 1, number) for number in (8, 7, 6)),
        (b"", 5, 15),
    ]


MANY = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.sampled_from([4 * KIB, MIB, ARENA, ARENA - MIB]),
        st.sampled_from(["rw-p", "---p", "rwxp", "rw-s", "r--p"]),
        st.sampled_from([0, 7]),
        st.sampled_from([b"", b"[heap]", b"[stack]", b"[anon:]", b"[anon:x", b"/lib/libjvm.so"]),
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    max_size=20,
)


@given(MANY, st.sampled_from([AT, GO, 0]), st.lists(st.integers(0, 1 << 48), max_size=5))
def test_no_memory_is_lost_or_counted_twice(
    given_: list[tuple[int, int, str, int, bytes, int, int]], base: int, sps: list[int]
) -> None:
    mappings, at = [], base
    for gap, size, permissions, inode, name, own, swapped in given_:
        start = at + (gap * MIB if gap % 3 else 0)
        at = start + size
        rss = min(size, 9 * 4 * KIB)
        anon_bytes = min(own * 4 * KIB, rss)
        mappings.append(Mapping(start, at, permissions, inode, name, rss, rss, anon_bytes, swapped * 4 * KIB))
    listed: list[Group] = folded(groups(mappings, [base + one for one in sps]), 3)
    for field in ("rss_bytes", "anon_bytes", "swap_bytes"):
        assert sum(getattr(one, field) for one in listed) == sum(getattr(one, field) for one in mappings)
    assert {one.kind for one in listed} <= set(KINDS)
    assert all(one.count > 0 for one in listed)
