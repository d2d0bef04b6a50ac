from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TextIO

import pytest
from rich.text import Text

from tracer.render.terminal import console


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def _written(stream: TextIO) -> str:
    console.write(stream, [Text("x" * 3, style="bold red"), Text("y " * 120)])
    stream.seek(0)
    return stream.read()


def test_pipe_gets_plain_text_within_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    written = _written(io.StringIO())
    assert "\x1b" not in written
    assert max(map(len, written.splitlines())) <= 100


def test_terminal_gets_colour_and_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert console.columns_for(Terminal()) == 140
    assert "\x1b[1;31m" in _written(Terminal())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_dumb_terminals_get_no_colour(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((140, 24)))
    assert console.columns_for(Terminal()) == 140
    monkeypatch.setenv(name, value)
    assert console.columns_for(Terminal()) == 100
    assert "\x1b" not in _written(Terminal())


def test_pipe_with_forced_colour_gets_it_unless_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31m" in _written(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _written(io.StringIO())


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ("170", 170),
        ("80", 80),
        ("7", 60),
        ("9" * 30, 1000),
        ("", 100),
        ("wide", 100),
        ("-8", 100),
        ("0", 100),
    ],
)
def test_columns_variable_sets_the_width_of_a_pipe(
    monkeypatch: pytest.MonkeyPatch, asked: str, columns: int
) -> None:
    with monkeypatch.context() as patch:  # `pytest -v` reports the test before its end, in that width
        patch.setenv("COLUMNS", asked)
        assert console.columns_for(io.StringIO()) == columns


def test_markup_and_emoji_codes_are_shown_unchanged() -> None:
    assert console.to_text(["[red]x[/red] :skull:"], columns=80, colour=True) == "[red]x[/red] :skull:\n"


def test_glyph_of_any_view_has_an_ascii_form() -> None:
    golden = sorted((Path(__file__).parent / "golden").glob("*.txt"))
    assert golden
    for path in golden:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        console.write(stream, [Text(path.read_text(encoding="utf-8"))])
        assert rb"\u" not in raw.getvalue(), path.name


def test_encoding_without_glyphs_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console.write(stream, [Text("█░▒│ ✗ größe")])
    assert raw.getvalue() == b"#cd| x gr\\xf6\\xdfe\n"
