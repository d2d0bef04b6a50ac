"""Stacks of allocators: a line for each, or all functions."""

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


def test_stack_shows_the_functions_of_the_program() -> None:
    assert shown(allocator(41, GROW)) == [
        ("charged in", "grow ← main: work (41), 3 MiB of 4 MiB sampled"),
    ]


def test_allocator_without_samples_has_no_line() -> None:
    assert shown(allocator(41, None)) == []
    assert [label for label, _ in shown(allocator(41, None), allocator(42, GROW))] == ["charged in"]


def test_stack_without_user_functions_has_those_of_the_kernel() -> None:
    lines = shown(
        allocator(2, ChargedStack(None, ("charge",), 1, 1), comm=None),
        allocator(3, ChargedStack(None, None, 1, 1)),
    )
    assert [text.partition(":")[0] for _, text in lines] == ["charge", "no stack could be taken"]
    assert "name not known (2)" in lines[0][1]


def test_deep_stack_and_many_allocators_are_cut() -> None:
    deep = ChargedStack(tuple("abcdefgh"), None, 1, 1)
    lines = shown(*[allocator(tgid, deep) for tgid in range(9)])
    assert len(lines) == 3
    assert lines[0][1].startswith("a ← b ← c ← d ← e ← …: ")


def test_verbose_stacks_are_complete() -> None:
    lines = shown(*[allocator(tgid, GROW) for tgid in range(9)], verbose=True)
    assert [text for _, text in lines[:5]] == [
        "work (0), 3 MiB of 4 MiB sampled:",
        "charge",
        "fault",
        "grow",
        "main",
    ]
    assert len(lines) == 9 * 5


def test_hostile_names_of_functions_are_escaped() -> None:
    hostile = ChargedStack(("\x1b[31mgrow\n",), ("\x1b[0m",), 1, 1)
    for verbose in (False, True):
        assert "\x1b" not in str(
            [text for _, text in shown(allocator(1, hostile, "\x1b\n"), verbose=verbose)]
        )
        assert all(text.isprintable() for _, text in shown(allocator(1, hostile, "\x1b\n"), verbose=verbose))
