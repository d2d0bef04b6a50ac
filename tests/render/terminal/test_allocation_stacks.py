"""Stacks with which memory was charged: a line for each, or all functions."""

from __future__ import annotations

from dataclasses import replace

from tracer.analysis.results.memory import ChargedStack
from tracer.render.terminal.first_screen import charged_in

MIB = 1 << 20
GROW = ChargedStack("work", 41, 1, "anon", ("grow", "main"), ("charge", "fault"), 3 * MIB, 4 * MIB)


def shown(*stacks: ChargedStack, verbose: bool = False) -> list[tuple[str, str]]:
    return list(charged_in(stacks, verbose=verbose))


def test_stack_shows_the_functions_of_the_program_and_the_kind() -> None:
    assert shown(GROW, replace(GROW, processes=4, tgid=None, of="all")) == [
        ("charged in", "grow ← main: work (41), 3 MiB of 4 MiB of anonymous memory sampled"),
        ("", "grow ← main: 4 work processes, 3 MiB of 4 MiB sampled"),
    ]
    assert shown() == []


def test_stack_without_user_functions_has_those_of_the_kernel() -> None:
    lines = shown(
        replace(GROW, user=None, comm=None, tgid=2),
        replace(GROW, user=None, kernel=None),
    )
    assert [text.partition(":")[0] for _, text in lines] == ["charge ← fault", "no stack could be taken"]
    assert "name not known (2)" in lines[0][1]


def test_deep_stack_is_cut() -> None:
    ((_, line),) = shown(replace(GROW, user=tuple("abcdefgh")))
    assert line.startswith("a ← b ← c ← d ← e ← …: ")


def test_verbose_stacks_are_complete() -> None:
    lines = shown(*[replace(GROW, tgid=tgid) for tgid in range(9)], verbose=True)
    assert [text for _, text in lines[:5]] == [
        "work (0), 3 MiB of 4 MiB of anonymous memory sampled:",
        "charge",
        "fault",
        "grow",
        "main",
    ]
    assert len(lines) == 9 * 5


def test_hostile_names_of_functions_are_escaped() -> None:
    hostile = replace(GROW, comm="\x1b\n", user=("\x1b[31mgrow\n",), kernel=("\x1b[0m",))
    for verbose in (False, True):
        texts = [text for _, text in shown(hostile, verbose=verbose)]
        assert "\x1b" not in str(texts)
        assert all(text.isprintable() for text in texts)
