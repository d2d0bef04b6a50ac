"""smaps texts, true and hostile ones."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.anatomy.smaps import Mapping, parse_smaps, read_smaps

MIB = 1 << 20
SOON_S = 1e9  # of CLOCK_MONOTONIC: never
NAMES = st.binary(max_size=40).map(lambda name: name.translate(None, b"\n").strip())


def text_of(mapping: Mapping) -> bytes:
    """Return a mapping as show_smap() prints it, with lines that are not read."""
    header = (
        f"{mapping.start:08x}-{mapping.end:08x} {mapping.permissions} 00000000 fe:01 {mapping.inode}".encode()
    )
    sizes = {
        "Size": mapping.end - mapping.start,
        "Rss": mapping.rss_bytes,
        "Pss": mapping.pss_bytes,
        "Pss_Dirty": 0,
        "Anonymous": mapping.anon_bytes,
        "AnonHugePages": 0,
        "Swap": mapping.swap_bytes,
        "SwapPss": 4096,
    }
    lines = [f"{name + ':':<16}{size // 1024:8} kB".encode() for name, size in sizes.items()]
    flags = b"VmFlags: rd wr mr " + (b"nh " if mapping.is_small_paged else b"")
    named = header.ljust(73) + mapping.name if mapping.name else header
    return b"\n".join([named, *lines, b"THPeligible:    1", flags, b""])


@st.composite
def mappings(draw: st.DrawFn) -> list[Mapping]:
    found, at = [], 0x1000
    for _ in range(draw(st.integers(0, 6))):
        start = at + draw(st.integers(0, 1 << 30)) * 4096
        at = start + draw(st.integers(1, 1 << 20)) * 4096
        rss, pss, anon, swap = (draw(st.integers(0, 1 << 30)) * 1024 for _ in range(4))
        permissions = "".join(draw(st.sampled_from([one, "-"])) for one in "rwx") + draw(
            st.sampled_from("ps")
        )
        name = draw(NAMES)
        inode, is_small_paged = draw(st.integers(0, 1 << 40)), draw(st.booleans())
        found.append(Mapping(start, at, permissions, inode, name, rss, pss, anon, swap, is_small_paged))
    return found


@given(mappings())
def test_printed_mappings_are_parsed_as_they_were(listed: list[Mapping]) -> None:
    text = b"".join(map(text_of, listed))
    bare = [one._replace(name=one.name.removesuffix(b" (deleted)")) if one.inode else one for one in listed]
    assert list(parse_smaps(text)) == bare


@given(mappings(), st.data())
def test_text_that_breaks_off_lacks_only_its_end(listed: list[Mapping], data: st.DataObject) -> None:
    text = b"".join(map(text_of, listed))
    part = text[: data.draw(st.integers(0, len(text)))]
    found = list(parse_smaps(part, is_whole=False))
    assert found == list(parse_smaps(text))[: len(found)]


@given(st.binary())
def test_any_text_gives_mappings_or_nothing(text: bytes) -> None:
    for one in parse_smaps(text):
        assert 0 <= one.start < one.end
        assert len(one.permissions) == 4


LINE = b"7f0000000000-7f0000001000 rw-s 00000000 00:01 7"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"    /dev/shm/a b (deleted)", b"/dev/shm/a b"),
        (b"    /tmp/two\\012lines", b"/tmp/two\\012lines"),
        (b"    /tmp/\xff\x1b[31m", b"/tmp/\xff\x1b[31m"),
        (b"    /tmp/Rss:   9999 kB", b"/tmp/Rss:   9999 kB"),
        (b"    [anon:Go: heap]", b"[anon:Go: heap]"),
        (b"", b""),
    ],
)
def test_name_is_kept_as_the_kernel_prints_it(written: bytes, name: bytes) -> None:
    (one,) = parse_smaps(LINE + written + b"\nRss:       12 kB\n")
    assert (one.name, one.rss_bytes) == (name, 12 << 10)


@pytest.mark.parametrize(
    "line",
    [
        b"7f00-7e00 rw-p 0 00:00 0",
        b"7f00 rw-p 0 00:00 0",
        b"-7f00-7f10 rw-p 0 00:00 0",
        b"7f00-7f10 rw-px 0 00:00 0",
        b"7f00-7f10 rw-p 0 00:00 x",
        b"7f00-7f10 rw-p 0 00:00",
    ],
)
def test_line_of_another_form_is_left_out(line: bytes) -> None:
    assert list(parse_smaps(line + b"\nRss: 4 kB\n")) == []


def test_own_mappings_have_what_was_touched() -> None:
    with mmap.mmap(-1, 5 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.madvise(mmap.MADV_NOHUGEPAGE)
        held[: 3 * MIB] = b"x" * (3 * MIB)
        read = read_smaps(Path("/proc/self"), SOON_S)
    assert read.why_partial is None
    assert any(one.anon_bytes == 3 * MIB and one.end - one.start == 5 * MIB for one in read.mappings)


def test_text_is_read_up_to_a_bound(tmp_path: Path) -> None:
    text = b"".join(
        text_of(Mapping(number << 12, (number + 1) << 12, "rw-p", 0, b"")) for number in range(1, 1000)
    )
    (tmp_path / "smaps").write_bytes(text)
    whole = read_smaps(tmp_path, SOON_S, len(text))
    part = read_smaps(tmp_path, SOON_S, len(text) // 2)
    assert (len(whole.mappings), whole.why_partial) == (999, None)
    assert 490 < len(part.mappings) < 500
    assert part.why_partial is not None


def test_reading_ends_in_time() -> None:
    assert read_smaps(Path("/proc/self"), time.monotonic() - 1) == ([], "no time was left")


def test_process_that_has_ended_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="smaps"):
        read_smaps(tmp_path / str(os.getpid()), SOON_S)
