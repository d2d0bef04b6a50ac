"""The sources are compiled in the order that their includes ask for."""

from __future__ import annotations

import re
from pathlib import Path

from tracer.capture.bpf.sources import bpf_folder, ordered_sources

COLUMNS = 100
LINES = 400


def files() -> list[Path]:
    return [path for pattern in ("*.h", "*.bpf.c", "shared/*.h") for path in bpf_folder().glob(pattern)]


def test_every_source_is_compiled_once() -> None:
    names = {str(path.relative_to(bpf_folder())) for path in files()}
    assert ordered_sources(bpf_folder()).keys() == names


def test_a_source_stands_behind_those_that_it_includes(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "a.bpf.c").write_text('#include "shared/b.h"\n#include "c.h"\na\n')
    (tmp_path / "shared" / "b.h").write_text('#include "../c.h"\nb\n')
    (tmp_path / "c.h").write_text("c\n")
    expected = {"c.h": "c\n", "shared/b.h": "\nb\n", "a.bpf.c": "\n\na\n"}
    assert list(ordered_sources(tmp_path).items()) == list(expected.items())


def test_only_the_loader_resolves_includes() -> None:
    assert not re.search("#include", "".join(ordered_sources(bpf_folder()).values()))


def test_files_and_lines_of_the_sources_are_short() -> None:
    for path in files():
        lines = path.read_text().expandtabs(8).splitlines()
        assert len(lines) < LINES, path
        assert max(map(len, lines)) <= COLUMNS, path
