"""The BPF sources: their order, their size, and their includes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracer.capture.bpf.compiled.cache import Cache
from tracer.capture.bpf.compiled.compiler import Compilation, Source
from tracer.capture.bpf.compiled.sources import bpf_folder, ordered_sources
from tracer.capture.bpf.syscall import machine
from tracer.kernel import struct_header
from tracer.kernel.btf import Btf
from tracer.wire.streams import RING_BYTES, STREAMS, Stream

COLUMNS = 100
LINES = 400


def files() -> list[Path]:
    return [path for pattern in ("*.h", "*.bpf.c", "shared/*.h") for path in bpf_folder().glob(pattern)]


def test_ordered_sources_have_every_file_once() -> None:
    names = {str(path.relative_to(bpf_folder())) for path in files()}
    assert ordered_sources(bpf_folder()).keys() == names


def test_ordered_sources_put_included_files_first(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "a.bpf.c").write_text('#include "shared/b.h"\n#include "c.h"\na\n')
    (tmp_path / "shared" / "b.h").write_text('#include "../c.h"\nb\n')
    (tmp_path / "c.h").write_text("c\n")
    expected = {"c.h": "c\n", "shared/b.h": "\nb\n", "a.bpf.c": "\n\na\n"}
    assert list(ordered_sources(tmp_path).items()) == list(expected.items())


def test_ordered_sources_have_no_includes_left() -> None:
    assert not re.search("#include", "".join(ordered_sources(bpf_folder()).values()))


def test_source_files_and_lines_are_short() -> None:
    for path in files():
        lines = path.read_text().expandtabs(8).splitlines()
        assert len(lines) < LINES or path.name == "events.h", path  # which is generated
        assert max(map(len, lines)) <= COLUMNS, path


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_stream_has_its_ring_in_the_sources(stream: Stream) -> None:
    ring = f"BPF_RINGBUF_OUTPUT({stream.name}_ring, {stream.name.upper()}_RING_PAGES);"
    assert [path.name for path in files() if ring in path.read_text()] != []


@pytest.mark.kernel
@pytest.mark.beside
@pytest.mark.parametrize("name", [path.name for path in bpf_folder().glob("*.bpf.c")])
def test_program_compiled_alone_has_all_that_it_uses(name: str, tmp_path: Path) -> None:
    text = "\n".join([struct_header.header(Btf.load()), *ordered_sources(bpf_folder(), name).values()])
    sizes = (
        "PAGE_SIZE",
        "TRACER_CPUS",
        "TRACER_COMBINE_TICKS",
        "TRACER_TICK_NS",
        "TRACER_ROOTS",
        "TRACER_ACCOUNTS",
        "TRACER_SAMPLED",
        "TRACER_SAMPLES_A_RUN",
    )
    rings = (f"{ring.upper()}_RING_PAGES" for ring in RING_BYTES)
    flags = [f"-D{define}=64" for define in (*sizes, "TRACER_WANTED_PATHS", "STACKS_BYTES", *rings)]
    flags += ["-DTEST_RUN_ARGS=12", f"-D{machine().macro}", "-Wno-unused-function"]
    compilation = Compilation(lambda *_: Source(text, flags, []), name, Cache(tmp_path))
    assert compilation.result().object_file.programs
