"""How the stacks of allocators are said: in a line each, or whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tracer.analysis.results.memory import Allocator, ChargedStack
from tracer.render.terminal.allocation_stacks import heaviest

MIB = 1 << 20


def shown(*allocators: Allocator, verbose: bool = False) -> list[tuple[str, str]]:
    report: Any = SimpleNamespace(allocators=allocators)
    return list(heaviest(report, verbose=verbose))


def allocator(tgid: int, stack: ChargedStack | None, comm: str | None = "work") -> Allocator:
    return Allocator(tgid, comm, 9 * MIB, stack)


GROW = ChargedStack(("grow", "main"), ("charge", "fault"), 3 * MIB, 4 * MIB)


def test_the_program_in_its_own_words() -> None:
    assert shown(allocator(41, GROW)) == [
        ("charged in", "grow ← main: work (41), 3 MiB of 4 MiB sampled"),
    ]


def test_nothing_is_said_where_nothing_was_sampled() -> None:
    assert shown(allocator(41, None)) == []
    assert [label for label, _ in shown(allocator(41, None), allocator(42, GROW))] == ["charged in"]


def test_the_kernel_where_there_is_no_program_and_neither() -> None:
    lines = shown(
        allocator(2, ChargedStack(None, ("charge",), 1, 1), comm=None),
        allocator(3, ChargedStack(None, None, 1, 1)),
    )
    assert [text.partition(":")[0] for _, text in lines] == ["charge", "no stack could be taken"]
    assert "name not known (2)" in lines[0][1]


def test_a_deep_stack_is_cut_and_many_allocators_too() -> None:
    deep = ChargedStack(tuple("abcdefgh"), None, 1, 1)
    lines = shown(*[allocator(tgid, deep) for tgid in range(9)])
    assert len(lines) == 3
    assert lines[0][1].startswith("a ← b ← c ← d ← e ← …: ")


def test_verbose_shows_all_of_all() -> None:
    lines = shown(*[allocator(tgid, GROW) for tgid in range(9)], verbose=True)
    assert [text for _, text in lines[:5]] == [
        "work (0), 3 MiB of 4 MiB sampled:",
        "charge",
        "fault",
        "grow",
        "main",
    ]
    assert len(lines) == 9 * 5


def test_hostile_names_do_nothing() -> None:
    hostile = ChargedStack(("\x1b[31mgrow\n",), ("\x1b[0m",), 1, 1)
    for verbose in (False, True):
        assert "\x1b" not in str(
            [text for _, text in shown(allocator(1, hostile, "\x1b\n"), verbose=verbose)]
        )
        assert all(text.isprintable() for _, text in shown(allocator(1, hostile, "\x1b\n"), verbose=verbose))
