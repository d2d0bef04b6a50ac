"""The lines of /proc/PID/maps, also of files with hostile names."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.process.mapped_ranges import MappedRange, parse_maps, read_maps

HOSTILE_NAMES = [
    b"a\rb",
    b"a\r7f00-7f10 rw-s 0 00:01 e /x",
    b"a\x0b\x0cb c d e f",
    b"a\x85\xff ",
    b"a (deleted)",
]


def line_of(one: MappedRange) -> bytes:
    """Return a mapping as show_map_vma() prints it."""
    place, device = f"{one.start:08x}-{one.end:08x}", "{:02x}:{:02x}".format(*one.device)
    line = f"{place} {one.permissions} {one.offset:08x} {device} {one.inode} ".encode()
    return (line.ljust(73) + one.name if one.name else line) + b"\n"


NAMES = st.one_of(
    st.just(b""),
    st.sampled_from(HOSTILE_NAMES).map(b"/".__add__),
    st.binary(max_size=40).map(lambda name: b"/" + name.replace(b"\n", b"\\012")),
)
RANGES = st.builds(
    lambda start, pages, *rest: MappedRange(start, start + pages * mmap.PAGESIZE, *rest),
    st.integers(0, 1 << 50),
    st.integers(1, 1 << 20),
    st.tuples(*map(st.sampled_from, ("r-", "w-", "x-", "ps"))).map("".join),
    st.integers(0, (1 << 64) - 1),
    st.tuples(st.integers(0, (1 << 12) - 1), st.integers(0, (1 << 20) - 1)),
    st.integers(0, (1 << 64) - 1),
    NAMES,
)


@given(st.lists(RANGES, max_size=5))
def test_printed_mappings_are_parsed_as_they_were(listed: list[MappedRange]) -> None:
    assert list(parse_maps(b"".join(map(line_of, listed)))) == listed


@given(st.lists(RANGES, max_size=3), st.binary(max_size=60))
def test_lines_of_another_form_are_left_out(listed: list[MappedRange], other: bytes) -> None:
    text = b"x" + other.replace(b"\n", b"\nx") + b"\n" + b"".join(map(line_of, listed))
    assert list(parse_maps(text)) == listed


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_own_file_with_a_hostile_name_is_one_mapping(name: bytes, tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/" + name.replace(b"/", b"_")
    with open(path, "w+b") as file:  # noqa: PTH123  a name of any bytes
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE):
            (one,) = (one for one in read_maps(Path("/proc/self")) if one.name == path)
    assert (one.end - one.start, one.permissions, one.offset) == (mmap.PAGESIZE, "rw-s", 0)
    assert one.inode == Path(path.decode("utf-8", "surrogateescape")).stat().st_ino


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    lines = [line_of(MappedRange(4096 * n, 4096 * (n + 1), "r--p", 0, (0, 0), 0, b"")) for n in range(1, 9)]
    (tmp_path / "maps").write_bytes(b"".join(lines))
    assert len(read_maps(tmp_path)) == 8
    assert len(read_maps(tmp_path, len(lines[0]) * 3)) == 3
