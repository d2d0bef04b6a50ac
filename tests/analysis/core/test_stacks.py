"""The functions of stacks, looked up by number."""

from __future__ import annotations

import pytest

from tracer.analysis.core.lookups import function_of


@pytest.mark.parametrize(
    ("frame", "function"),
    [
        ("try_charge+0x1a1", "try_charge"),
        ("grow [work]", "grow"),
        ("std::map<int, char>::insert(int [4]) [work]", "std::map<int, char>::insert(int [4])"),
        ("lambda+0x10 [work]", "lambda+0x10"),
        ("[libc.so.6]+0x10", "[libc.so.6]+0x10"),
        ("0x7f00", "0x7f00"),
        ("", ""),
    ],
)
def test_function_of_a_frame_is_its_symbol(frame: str, function: str) -> None:
    assert function_of(frame) == function
