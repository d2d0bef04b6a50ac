from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tracer.render.words.escape import fitted, visible

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("python3", "python3"),
        ("größe 文", "größe 文"),
        (r"dev-\x2d.service", r"dev-\x2d.service"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb", r"a\u202eb"),
        ("\u2028", r"\u2028"),
        ("\U000e0041", r"\U000e0041"),
        (b"a\xffb".decode("utf-8", "surrogateescape"), r"a\xffb"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_shown_as_escapes(name: str, shown: str) -> None:
    assert visible(name) == shown


@given(ANY_TEXT)
def test_visible_name_has_no_control_character(name: str) -> None:
    shown = visible(name)
    shown.encode()
    assert not any(unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" for c in shown)


@given(ANY_TEXT, st.integers(3, 40))
def test_fitted_name_fits_and_keeps_its_ends(name: str, cells: int) -> None:
    shown = fitted(name, cells)
    assert cell_len(shown) <= cells
    if cell_len(visible(name)) <= cells:
        assert shown == visible(name)
    else:
        assert "…" in shown


def test_fitted_path_loses_its_middle() -> None:
    assert fitted("/docker/0123456789abcdef/child", 15) == "/docker…f/child"
