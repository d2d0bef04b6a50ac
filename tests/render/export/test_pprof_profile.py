"""Profiles of pprof, compared with what the tool itself read and wrote."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.views.code_samples import SampledStack
from tracer.protobuf_messages import message_classes
from tracer.render.export import pprof_profile

MIB = 1 << 20
WRITTEN_BY_PPROF = Path(__file__).with_name("rows.pprof.pb.gz")
"""`go tool pprof -proto -output rows.pprof.pb.gz FILE`, where FILE is `pprof_profile.profile` of `STACKS`."""

USER = (
    "[libc.so.6]+0x17bc92",
    "parse [/srv/app.py:41]",
    "<module> [/srv/app.py:88]",
    "main+0x1f [python3.13]",
)
STACKS = [
    SampledStack(
        "/web", "shop", "python3", 17, "anon", USER, ("do_anonymous_page+0x1", "exc_page_fault"), 7 * MIB
    ),
    SampledStack(
        "/web", "shop", "python3", 17, "anon", USER, ("do_anonymous_page+0x9", "exc_page_fault"), 4 * MIB
    ),
    SampledStack("/web", None, None, 19, "kernel", (), ("kmem_cache_alloc", "alloc_inode"), 2 * MIB),
]


def profile(stacks: list[SampledStack] = STACKS) -> bytes:
    return pprof_profile.profile(
        stacks,
        period_bytes=MIB,
        begin_ns=1_764_000_000_000_000_000,
        end_ns=1_764_000_002_000_000_000,
        trace="web",
    )


def content(file: bytes) -> dict[str, Any]:
    """Return what a reader shows, with texts instead of numbers."""
    message = message_classes("test", pprof_profile.MESSAGES)["Profile"]()
    message.ParseFromString(gzip.decompress(file))
    text = message.string_table
    mappings = {one.id: text[one.filename] for one in message.mapping} | {0: None}
    functions = {one.id: (text[one.name], text[one.filename]) for one in message.function}
    locations = {
        one.id: (mappings[one.mapping_id], *functions[one.line[0].function_id], one.line[0].line)
        for one in message.location
    }
    kind, period = message.sample_type[0], message.period_type
    return {
        "type": (text[kind.type], text[kind.unit], text[period.type], text[period.unit], message.period),
        "time": (message.time_nanos, message.duration_nanos),
        "comments": [text[one] for one in message.comment],
        "program": mappings.get(1),
        "samples": sorted(
            (
                tuple(one.value),
                sorted((text[label.key], text[label.str]) for label in one.label),
                [locations[number] for number in one.location_id],
            )
            for one in message.sample
        ),
    }


def test_profile_is_read_by_pprof_as_it_was_written() -> None:
    """The file of the tool has its own numbers for texts and functions. A field with a wrong number would be
    lost or refused there."""
    assert content(WRITTEN_BY_PPROF.read_bytes()) == content(profile())


def test_stacks_that_differ_in_offsets_only_are_one_sample() -> None:
    small, large = content(profile())["samples"]
    assert (small[0], large[0]) == ((2 * MIB,), (11 * MIB,))
    assert large[2] == [
        ("libc.so.6", "[libc.so.6]+0x17bc92", "", 0),
        (None, "parse", "/srv/app.py", 41),
        (None, "<module>", "/srv/app.py", 88),
        ("python3.13", "main", "", 0),
    ]
    labels = [
        ("category", "anon"),
        ("cgroup", "/web"),
        ("container", "shop"),
        ("pid", "17"),
        ("process", "python3"),
    ]
    assert large[1] == labels
    assert small[1] == [("category", "kernel"), ("cgroup", "/web"), ("pid", "19")]
    assert small[2] == [("[kernel.kallsyms]", name, "", 0) for name in ("kmem_cache_alloc", "alloc_inode")]


def test_program_is_the_first_mapping() -> None:
    """Readers name the profile after it."""
    assert content(profile())["program"] == "python3.13"


def test_profile_of_the_same_samples_is_the_same() -> None:
    assert profile() == profile()
    assert content(profile([]))["samples"] == []


NAMES = st.text() | st.sampled_from(["\x1b[31m", "a [b]", "[x]+0x1", "\u202e", "\udc80", "f [a.py:3]", "<x>"])


@given(NAMES, NAMES, st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3))
def test_hostile_names_are_escaped(cgroup: str, comm: str, user: list[str], kernel: list[str]) -> None:
    stack = SampledStack(cgroup, cgroup, comm, 1, "sock", tuple(user), tuple(kernel), MIB)
    read = content(profile([stack]))
    ((_, labels, locations),) = read["samples"]
    assert len(locations) == len(user) + len(kernel)
    assert not any(bad in str([labels, locations]) for bad in ("\x1b", "\u202e", "\udc80"))
