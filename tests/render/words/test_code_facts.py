"""The code that grew, in one line and in full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.analysis.results.memory import Caller, CodeFrame, Grown, GrownCode, GrownProcess, SampledMemory
from tracer.render.words.code_facts import grown, in_full

MIB = 1 << 20
MAIN = CodeFrame("main", "app.py", 88, None)
LOAD = GrownCode(
    share=0.714,
    share_error=0.06,
    bytes=58 * MIB,
    of="anon",
    process=GrownProcess(41, "python3", 1),
    language="python",
    mapping=None,
    frames=(CodeFrame("load_rows", "app.py", 41, None), MAIN),
)
PARSE = replace(LOAD, share=0.24, bytes=19 * MIB, frames=(CodeFrame("parse", "app.py", 17, None),))
NATIVE = replace(
    LOAD,
    share=0.2,
    process=GrownProcess(None, "work", 4),
    frames=(CodeFrame("grow", None, None, "libwork.so"),),
)


def test_functions_of_a_process_are_one_line() -> None:
    assert list(grown(Grown((LOAD, PARSE), 0.97))) == [
        (
            "what grew",
            "71 ± 6 % in load_rows (app.py:41), called by main (app.py:88); "
            "24 ± 6 % in parse (app.py:17): python3 (41)",
        )
    ]
    assert list(grown(Grown())) == []
    assert list(grown(Grown((), 0.0))) == [("what grew", "not known: none of the growth was sampled")]


@pytest.mark.parametrize(
    ("share", "error", "shown"),
    [
        (0.95, 0.05, "95 ± 5 %"),
        (0.95, 0.06, "89 to 100 %"),
        (0.1, 0.12, "0 to 22 %"),
        (1.0, 0.002, "100 %"),
        (0.0, 0.001, "0 %"),
    ],
)
def test_share_that_passes_an_edge_is_a_range(share: float, error: float, shown: str) -> None:
    [(_, text)] = grown(Grown((replace(LOAD, share=share, share_error=error),), 1.0))
    assert text.startswith(f"{shown} in load_rows")


def test_callers_of_one_function_are_named_with_their_shares() -> None:
    called = tuple(
        Caller(share, CodeFrame(name, None, None, module))
        for share, name, module in ((0.12, "set", "libwork.so"), (0.05, "add", "main"))
    )
    one = replace(NATIVE, callers=called)
    [(_, text)] = grown(Grown((one,), 1.0))
    assert text == "20 ± 6 % in grow (libwork.so), called by set 12 %, add (main) 5 %: 4 work processes"
    assert [text for _, text in in_full(Grown((one,), 1.0))][1:] == [
        "  grow (libwork.so)",
        "    12 % by set (libwork.so)",
        "    5 % by add (main)",
    ]


def test_processes_have_a_line_each() -> None:
    lines = list(grown(Grown((LOAD, NATIVE, PARSE), 0.5)))
    assert [label for label, _ in lines] == ["what grew", ""]
    assert lines[0][1].endswith("python3 (41) (of the 50 % of the growth that was sampled)")
    assert lines[1][1] == "20 ± 6 % in grow (libwork.so): 4 work processes"


@pytest.mark.parametrize(
    ("held", "freed", "unseen", "note"),
    [
        (100, 11, 0, ""),
        (100, 12, 0, " (12 MiB more were taken and freed again)"),
        (
            *(100, 101, 0),
            " (101 MiB more were taken and freed again; what the allocator used again counts for who took it "
            "first)",
        ),
        (100, 0, 10, ""),
        (100, 0, 11, " (11 MiB of the 100 MiB that were sampled were freed again, not known which)"),
    ],
)
def test_memory_that_was_freed_again_is_said_from_a_tenth_on(
    held: int, freed: int, unseen: int, note: str
) -> None:
    found = Grown((LOAD,), 1.0, SampledMemory(held * MIB, freed * MIB, unseen * MIB))
    for lines in (grown(found), in_full(found)):
        assert next(iter(lines))[1].partition(": python3 (41)")[2] == note


@pytest.mark.parametrize(("allocator", "is_said"), [(50, False), (51, True)])
def test_pages_that_malloc_touched_for_small_pieces_are_said_from_half_on(
    allocator: int, is_said: bool
) -> None:
    found = Grown((LOAD,), 1.0, SampledMemory(100 * MIB, 0, 0, allocator_bytes=allocator * MIB))
    for lines in (grown(found), in_full(found)):
        assert ("(pieces smaller than a page: all of" in next(iter(lines))[1]) == is_said


def test_time_of_the_samples_is_said() -> None:
    (_, said) = next(grown(Grown((LOAD,), 1.0, SampledMemory(100 * MIB, 20 * MIB, 0, 6.5))))
    assert said.endswith(": python3 (41) (sampled in 6.50 s; 20 MiB more were taken and freed again)")


@pytest.mark.parametrize(
    ("frames", "callers"), [(("evacuate", "scavenge_block"), ()), (("evacuate",), ("scavenge_one",))]
)
def test_collector_is_not_taken_for_code_that_keeps_memory(
    frames: tuple[str, ...], callers: tuple[str, ...]
) -> None:
    named = tuple(CodeFrame(name, None, None, "hs") for name in frames)
    called = tuple(Caller(0.5, CodeFrame(name, None, None, "hs")) for name in callers)
    found = Grown((replace(NATIVE, frames=named, callers=called),), 1.0)
    for lines in (grown(found), in_full(found)):
        assert next(iter(lines))[1].endswith(" (a garbage collector moves what other code made)")
    own = replace(NATIVE, frames=(CodeFrame("evacuate", None, None, "rescue"),))
    assert "collector" not in next(iter(grown(Grown((own,), 1.0))))[1]


def test_samples_that_were_all_freed_are_said() -> None:
    found = Grown((), 0.0, SampledMemory(0, MIB, 0))
    assert list(grown(found)) == [("what grew", "not known: what was sampled was freed again")]


def test_samples_of_many_functions_are_not_denied() -> None:
    found = Grown((), 0.9, SampledMemory(40 * MIB, MIB, 0))
    assert list(grown(found)) == [
        ("what grew", "many functions, each with less than 10 % of what was sampled")
    ]


@pytest.mark.parametrize(("unseen", "is_named"), [(50, True), (51, False)])
def test_functions_are_not_named_if_most_of_the_samples_were_freed(unseen: int, is_named: bool) -> None:
    ((_, said),) = grown(Grown((LOAD,), 1.0, SampledMemory(100 * MIB, 0, unseen * MIB)))
    assert ("load_rows" in said) == is_named
    assert f"{unseen} MiB of the 100 MiB that were sampled were freed again" in said


def test_all_frames_are_shown_in_full() -> None:
    assert list(in_full(Grown((LOAD, NATIVE), 1))) == [
        ("what grew", "71 ± 6 %, 58 MiB of anonymous memory: python3 (41)"),
        ("", "  load_rows (app.py:41)"),
        ("", "  main (app.py:88)"),
        ("", "20 ± 6 %, 58 MiB of anonymous memory: 4 work processes"),
        ("", "  grow (libwork.so)"),
    ]


def test_code_without_a_stack_is_said() -> None:
    ((_, line),) = grown(Grown((replace(LOAD, frames=()),)))
    assert line == "71 ± 6 % in no stack could be taken: python3 (41)"


def test_hostile_names_are_escaped() -> None:
    hostile = replace(
        LOAD,
        process=GrownProcess(41, "\x1b\n", 1),
        frames=(CodeFrame("\x1b[31mgrow\n", "\x1b[0m", 1, None), CodeFrame("f", None, None, "\x1b")),
    )
    for lines in (grown(Grown((hostile,), 0.1)), in_full(Grown((hostile,), 0.1))):
        texts = [text for _, text in lines]
        assert "\x1b" not in str(texts)
        assert all(text.isprintable() for text in texts)
