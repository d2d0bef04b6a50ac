"""Keys of a terminal: every sequence of its reads gives the same keys, and no bytes do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.top.screen.key_input import KeyInput


def keys_of(*reads: bytes) -> list[str]:
    keys = KeyInput()
    found = [key for read in reads for key in keys.feed(read)]
    return found + keys.flush()


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["pgup", "pgdn"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~\x1b[7~\x1b[8~", ["home", "end"] * 3),
        (b"\x1b[1;5A\x1b[5;2~", ["up", "pgup"]),
        (b"\r\n\x7f\x08\t", ["enter", "enter", "backspace", "backspace", "tab"]),
        (b"\x1b", ["esc"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
        (b"\x1bx", ["esc", "x"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\x1b[15~\x1b[<0;3;4M\x1b[?62c", []),
        (b"\xff\xfe\x00\x1f", []),
        (b"\x1b[\x07q", ["q"]),
        (b"\x1b[200~", []),
    ],
)
def test_bytes_become_keys(sent: bytes, keys: list[str]) -> None:
    assert keys_of(sent) == keys


PIECES = st.sampled_from(
    [
        b"q",
        b"\x1b[A",
        b"\x1bOB",
        b"\x1b[6~",
        b"\x1b[1;5C",
        "漢".encode(),
        b"\xc3",
        b"\x1b",
        b"[",
        b"\x1b[<0;1M",
    ]
)


@given(st.lists(PIECES).map(b"".join) | st.binary(), st.data())
def test_cuts_between_reads_make_no_difference(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)))))
    reads = [sent[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert keys_of(*reads) == keys_of(sent)


@given(st.binary())
def test_any_bytes_give_printable_or_named_keys_and_leave_little(sent: bytes) -> None:
    keys = KeyInput()
    for key in keys.feed(sent):
        assert key.isprintable()
        assert key
    assert len(keys.flush()) <= 33
    assert not keys.is_pending


def test_sequence_without_an_end_takes_no_memory() -> None:
    keys = KeyInput()
    for _ in range(100):
        keys.feed(b"\x1b[" + b"1" * 1000)
    assert len(keys.flush()) <= 33
    assert keys.feed(b"q") == ["q"]
