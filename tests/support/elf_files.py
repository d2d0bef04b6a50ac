"""ELF files of known symbols, and one whose owner truncates it while it is read."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _STRTAB, _DYN = 2, 3, 3


def elf_of(symbols: Mapping[bytes, int]) -> bytes:
    """Return an ELF file with a table of these symbols (name -> address) and without code."""
    texts, table = b"\0", _SYMBOL.pack(0, 0, 0, 0, 0, 0)
    for name, address in symbols.items():
        table += _SYMBOL.pack(len(texts), 0, 0, 1, address, 0)
        texts += name + b"\0"
    names = b"\0.symtab\0.strtab\0"
    table_at = _HEADER.size
    texts_at = table_at + len(table)
    names_at = texts_at + len(texts)
    sections = (
        bytes(_SECTION.size)
        + _SECTION.pack(1, _SYMTAB, 0, 0, table_at, len(table), 2, 0, 8, _SYMBOL.size)
        + _SECTION.pack(9, _STRTAB, 0, 0, texts_at, len(texts), 0, 0, 1, 0)
        + _SECTION.pack(9, _STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0)
    )
    sections_at = names_at + len(names)
    head = _HEADER.pack(
        b"\x7fELF", 2, 1, _DYN, 62, 1, 0, 0, sections_at, 0, _HEADER.size, 56, 0, _SECTION.size, 4, 3
    )
    return head + table + texts + names + sections


def truncate_once_opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncate a file as soon as a reader has asked for its size."""
    asked = os.fstat

    def fstat(fd: int) -> Any:
        status = asked(fd)
        if os.path.samestat(status, file.stat()):
            os.truncate(file, 0)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
