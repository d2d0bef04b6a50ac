"""Names in Markdown: a parser reads back exactly what is shown elsewhere, whatever the names are."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tracer.render.markdown import marks
from tracer.render.words.escape import visible

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NAMES = st.text(st.sampled_from("aZ09 \\`*_{}[]<>()#+-.!|~&$@:/^=%;'\"\té\x1b\u202e")) | st.text()


def shown(inline: object) -> str:
    """Return the text of a line. Anything but text and code is a mark that a name has made."""
    children = inline.children  # type: ignore[attr-defined]
    assert {child.type for child in children} <= {"text", "code_inline", "text_special"}, children
    return "".join(child.content for child in children)


def squeezed(text: str) -> str:
    return " ".join(text.split())


@given(NAMES)
@example("- item")
@example("1. item")
@example("# heading")
@example("<img src=x onerror=alert(1)>")
@example("[a](javascript:x) ![b](http://c)")
@example("&amp; &#64; a\\")
@example("``` a` `")
@example("    indented")
@example("===")
@example("---")
def test_name_in_a_paragraph_is_shown_as_it_is(name: str) -> None:
    tokens = PARSER.parse(f"before\n\n{marks.escaped(name)}\n\nafter")
    kinds = [token.type for token in tokens if token.type != "inline"]
    assert set(kinds) <= {"paragraph_open", "paragraph_close"}, kinds
    texts = [shown(token) for token in tokens if token.type == "inline"]
    assert squeezed(" ".join(texts)) == squeezed(f"before {visible(name)} after")


@given(NAMES, NAMES)
@example("x@\\|y", "x@\\\\|")
@example("@|", "|@`|`")
def test_name_in_a_cell_ends_no_cell(one: str, other: str) -> None:
    lines = marks.table((("a", "<"), ("b", ">")), [(one, other)])
    tokens = PARSER.parse("\n".join(lines))
    cells = [shown(token) for token in tokens if token.type == "inline"]
    assert list(map(squeezed, cells)) == ["a", "b", squeezed(visible(one)), squeezed(visible(other))]


@given(NAMES, NAMES)
def test_name_in_a_fact_stays_in_its_item(label: str, sentence: str) -> None:
    lines = marks.facts([("label", sentence), ("", label), ("next", "x")])
    tokens = PARSER.parse("\n".join(lines))
    assert sum(token.type == "list_item_open" for token in tokens) in (3, 2 + bool(label.strip()))


@pytest.mark.parametrize(
    "name",
    [
        "@everyone",
        "a@example.org",
        "https://a.example",
        "www.a.example",
        "WWW.A.EXAMPLE",
        "#41",
        "org/repo#7",
        "!3",
        ":tada:",
    ],
)
def test_word_that_would_be_linked_or_sends_a_message_is_code(name: str) -> None:
    assert marks.escaped(f"see {name} now") == f"see `{name}` now"


@pytest.mark.parametrize("text", ["99.7 MiB", "at 11:04:03.110177 UTC", "(pid 41)", "a-b.service", "80 %"])
def test_plain_words_have_no_escapes(text: str) -> None:
    assert marks.escaped(text) == text


def test_code_survives_backticks() -> None:
    (paragraph,) = [token for token in PARSER.parse(marks.code("a``b`")) if token.type == "inline"]
    assert re.sub(r"^ | $", "", shown(paragraph)) == "a``b`"
