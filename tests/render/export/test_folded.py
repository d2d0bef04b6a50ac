"""Folded stacks for flame graphs: one line for each stack, with any names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.views.code_samples import Charged
from tracer.render.export import folded


def test_folded_line_has_the_outermost_function_first() -> None:
    charged = [
        Charged("work", ("main", "grow(int, char)"), ("fault", "charge"), 3 << 20),
        Charged("kswapd0", (), ("reclaim",), 4096),
    ]
    assert list(folded.lines(charged)) == [
        "work;main;grow(int, char);fault;charge 3145728\n",
        "kswapd0;reclaim 4096\n",
    ]


NAMES = st.text() | st.sampled_from(["a;b", "\n", "\x1b[31m", "", "a 12", "\u202e", "\udc80"])


@given(NAMES, st.lists(NAMES, max_size=4), st.lists(NAMES, max_size=4), st.integers(1, 1 << 60))
def test_hostile_names_add_no_line_or_function(
    comm: str, user: list[str], kernel: list[str], weight: int
) -> None:
    (line,) = folded.lines([Charged(comm, tuple(user), tuple(kernel), weight)])
    assert line.splitlines(keepends=True) == [line]
    assert "\x1b" not in line
    stack, _, last = line.rstrip("\n").rpartition(" ")
    assert int(last) == weight
    assert len(stack.split(";")) == 1 + len(user) + len(kernel)
    assert "" not in stack.split(";")
