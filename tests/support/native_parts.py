"""Programs that grow by 70 % in one function and by 30 % in another one, which most of the compilers put into
its caller: optimised, without frame pointers where there is a choice, and with the lines of their source."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from support.go_program import built

_WORKLOADS: Final = Path(__file__).parents[1] / "workloads"


class _Language(NamedTuple):
    """A source in tests/workloads, the functions as they are shown, and the command that compiles it (none:
    Go's)."""

    source: str
    seven_tenths: str
    three_tenths: str
    caller: str
    command: tuple[str, ...] = ()


_RUST: Final = _Language(
    "parts.rs",
    "parts::store::Rows::parse_rows",
    "parts::store::Rows::build_index",
    "parts::store::Rows::load",
    ("rustc", "-O", "-g", "-Cforce-frame-pointers=no"),
)
LANGUAGES: Final[Mapping[str, _Language]] = {
    "c": _Language(
        "leaves.c",
        "parse_rows",
        "build_index",
        "load",
        ("cc", "-O2", "-g", "-fomit-frame-pointer"),
    ),
    "c++": _Language(
        "parts.cpp",
        "store::Rows::parse_rows(long)",
        "store::Rows::build_index(long)",
        "store::Rows::load(long)",
        ("c++", "-O2", "-g", "-fomit-frame-pointer"),
    ),
    "rust": _RUST,
    "rust v0": _RUST._replace(command=(*_RUST.command, "-Csymbol-mangling-version=v0")),
    "go": _Language("parts.go", "main.(*rows).parseRows", "main.fill", "main.(*rows).load"),
}


class Part(NamedTuple):
    """What is expected of a function: its share of the growth, its name and line, and those of its caller."""

    share: float
    function: str
    place: str
    called_by: str


def built_parts(name: str, folder: Path, go_cache: Path) -> tuple[Path, list[Part]]:
    """Compile the program of a language, and return what is expected of it; skip the test if there is no
    compiler."""
    language = LANGUAGES[name]
    source = _WORKLOADS / language.source
    if language.command:
        compiler = shutil.which(language.command[0])
        if compiler is None:
            pytest.skip(f"no {language.command[0]} to make a program of known memory")
        program = folder / source.stem
        subprocess.run([compiler, *language.command[1:], "-o", program, source], check=True)
    else:
        program = built(source.stem, folder, go_cache)
    lines = source.read_text(encoding="ascii").splitlines()

    def place(mark: str) -> str:
        (number,) = (number for number, line in enumerate(lines, 1) if mark in line)
        return f"({source.name}:{number})"

    parts = [(0.7, language.seven_tenths), (0.3, language.three_tenths)]
    return program, [
        Part(
            share,
            function,
            place(f"{share:.0%} here"),
            f"{language.caller} {place(f'calls for {share:.0%}')}",
        )
        for share, function in parts
    ]
