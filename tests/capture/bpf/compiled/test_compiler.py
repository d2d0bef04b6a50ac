"""The compiler's child process: its errors, and its use of cached objects."""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.bpf.compiled import compiler
from tracer.capture.bpf.compiled.cache import Cache
from tracer.capture.bpf.compiled.compiler import (
    Compilation,
    Source,
    bpf_folder,
    numbered_names,
    ordered_sources,
)
from tracer.capture.bpf.compiled.object_file import ObjectFile, ProgramCode
from tracer.capture.bpf.hooks import TRIED_ON, Choice
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.syscall import machine
from tracer.errors import TracerError
from tracer.kernel import struct_header
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.probes import SIGNALS
from tracer.wire.streams import STREAMS, Stream

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="without root, the error is about root")


class NoTypes(Btf):
    """The BTF of a kernel with nothing in it."""

    def __init__(self, *_: object) -> None:
        self.__dict__["enumerators"] = {"NR_ANON_MAPPED": 17, "unrelated": 1}

    def function(self, name: str) -> int | None:
        return 7 if name == TRIED_ON else None

    def tracepoint(self, name: str) -> int | None:
        return 8 if name == SIGNALS[0].ways[0].hooks[0].target else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a file of BTF, a C source and a module, from which everything is made."""
    for name in ("btf", "a.c", "a.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(Btf, "load", NoTypes)
    monkeypatch.setattr(compiler, "closed_families", lambda _: {"kprobe": (tmp_path / "closed").exists()})
    monkeypatch.setattr(compiler, "made_from", lambda: [tmp_path / "a.c", tmp_path / "a.py"])
    monkeypatch.setattr(compiler, "compiled", lambda text, _: ObjectFile((), {text: ProgramCode(b"", ())}))
    return tmp_path


def no_source(*_: object) -> Source:
    return Source("text", [], [Choice(SIGNALS[0], SIGNALS[0].ways[0]), Choice(SIGNALS[1], None, "absent")])


def compilation(
    folder: Path, compose: Callable[..., Source] = no_source, asked: object = ("a", 1)
) -> Compilation:
    return Compilation(compose, asked, Cache(folder / "cache"), folder / "btf")


def says(*lines: str, then: Callable[[], Any]) -> Callable[..., Any]:
    """Return a compiler that writes as BCC and LLVM do: to the descriptors, and by print."""

    def act(*_: object) -> None:
        os.write(2, "".join(f"{line}\n" for line in lines[:-1]).encode())
        print(lines[-1] if lines else "", flush=False)
        then()

    return act


def raises() -> None:
    raise ValueError("Failed to compile BPF module")


@needs_root
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            says("warning: hm", "a.c:1: error: no struct x", "1 error generated.", then=raises),
            "a.c:1: error: no struct x",
        ),
        (says("out of luck", then=raises), "Failed to compile BPF module"),
        (
            says("a.h:1:2: error: no member named 'ringbuf_query' in 'struct a_table_t'", then=raises),
            "this BCC is too old: 0.26, as in Debian 12, lacks ringbuf_query, and 0.31 has it",
        ),
        (says("first", "out of luck", then=lambda: sys.exit(1)), "out of luck"),
        (says("first", "LLVM ERROR: out of luck", "", then=lambda: os._exit(1)), "LLVM ERROR: out of luck"),
        (
            says(then=lambda: os.kill(os.getpid(), signal.SIGKILL)),
            "the compiler was ended by SIGKILL without a message",
        ),
        (says(then=lambda: sys.exit(1)), "the compiler failed without a message"),
    ],
)
def test_failed_compilation_reports_the_telling_line(
    act: Callable[..., Any],
    words: str,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "compiled", act)
    failed = compilation(folder)
    with pytest.raises(TracerError) as error:
        failed.result()
    assert str(error.value) == f"BCC cannot compile the BPF programs: {words}; see memcg-tracer doctor"
    assert capfd.readouterr() == ("", ""), "the output is in the error only"
    failed.stop()
    assert compilation(folder)._child, "a failure is not cached"


def test_unfit_kernel_is_reported_in_its_own_words(folder: Path) -> None:
    def refuse(*_: object) -> Source:
        raise TracerError("the kernel has no struct folio; see memcg-tracer doctor")

    with pytest.raises(TracerError, match=r"^the kernel has no struct folio; see memcg-tracer doctor$"):
        compilation(folder, refuse).result()


def test_kernel_without_btf_is_refused_at_once(folder: Path) -> None:
    (folder / "btf").unlink()
    with pytest.raises(TracerError, match=r"no BTF at .*btf \(No such file or directory\)"):
        compilation(folder)


def test_stop_kills_a_compiler_that_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compiled", lambda *_: time.sleep(600))
    sleeping = compilation(folder)
    child = sleeping._child
    sleeping.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    sleeping.stop()


def test_stop_ends_a_wait_in_another_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compiled", lambda *_: time.sleep(600))
    sleeping = compilation(folder)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(sleeping.result)
        assert not waiting.done()
        sleeping.stop()
        with pytest.raises(TracerError, match="ended by SIGKILL"):
            waiting.result(60)


def test_cached_unit_is_made_again_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of anything that the unit was made from makes another."""

    def is_made(asked: object = ("a", 1)) -> bool:
        one = compilation(folder, asked=asked)
        child = one._child
        unit = one.result()
        assert unit.object_file.programs.keys() == {"text"}
        assert unit.choices == no_source().choices
        assert (unit.types.enumerators, unit.types.function(TRIED_ON)) == ({"NR_ANON_MAPPED": 17}, 7)
        assert list(unit.types.tracepoints.values()) == [8]
        return child != 0

    assert is_made()
    assert not is_made()
    for name in ("btf", "a.c", "a.py"):
        (folder / name).write_text("other")
        assert is_made()
    assert is_made(asked=("a", 2))
    monkeypatch.setattr(compiler, "installed_bcc", lambda: "another")
    assert is_made()
    assert not is_made()
    (folder / "closed").touch()
    assert is_made(), "a family of hooks is closed that was open"
    assert not is_made()


def test_equal_source_is_compiled_once_for_all_that_ask_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other options, or a change of another module, may lead to the same source."""
    monkeypatch.setattr(compiler, "compiled_by", lambda: [folder / "a.c"])

    def compilations(asked: object = ("a", 1), text: str = "text", flags: Sequence[str] = ()) -> int:
        source = Source(text, [*flags], no_source().choices)
        unit = compilation(folder, lambda *_: source, (asked, text, flags)).result()
        assert unit.object_file.programs.keys() == {text}
        assert unit.choices == no_source().choices
        return len((folder / "made").read_text())

    def compiled(text: str, _: object) -> ObjectFile:
        with (folder / "made").open("a") as made:
            made.write("1")
        return ObjectFile((), {text: ProgramCode(b"", ())})

    monkeypatch.setattr(compiler, "compiled", compiled)
    assert compilations() == compilations(asked=("a", 2)) == 1
    (folder / "a.py").write_text("other")
    assert compilations() == 1
    assert compilations(text="other") == 2
    assert compilations(flags=["-Dother"]) == 3
    (folder / "a.c").write_text("other")
    assert compilations() == 4
    monkeypatch.setattr(compiler, "installed_bcc", lambda: "another")
    assert compilations() == compilations(asked=("a", 2)) == 5


def test_program_that_compiles_elsewhere_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "object").write_bytes(ObjectFile((), {"p": ProgramCode(b"", ())}).encode())
    (tmp_path / "compiler").write_text(f'#!/bin/sh\ncat > "{tmp_path}/request"\ncat "{tmp_path}/object"\n')
    (tmp_path / "compiler").chmod(0o700)
    monkeypatch.setenv("MEMCG_TRACER_COMPILER", str(tmp_path / "compiler"))
    assert compiler.compiled("text", ["-Da"]).programs.keys() == {"p"}
    request = json.loads((tmp_path / "request").read_bytes())
    assert (request["text"], request["flags"]) == ("text", ["-Da"])


@pytest.mark.parametrize(
    "document", [b"", b"{}\n", b'{"choices": 7}\n', b'{"choices": [["no such signal", 0, ""]]}\n']
)
def test_cached_document_of_another_form_is_made_again(folder: Path, document: bytes) -> None:
    cache, key = Cache(folder / "cache"), compilation(folder)._key
    cache.put(key, document)
    assert compilation(folder).result().choices == no_source().choices
    assert cache.get(key) != document


def test_damaged_object_is_compiled_again(folder: Path) -> None:
    cache, source = Cache(folder / "cache"), compilation(folder).result().source
    cache.put(source, b"{}")
    damaged = compilation(folder)
    assert damaged._child
    assert damaged.result().object_file.programs.keys() == {"text"}
    assert not compilation(folder)._child


def test_unit_is_made_from_every_module_that_its_makers_import() -> None:
    """A change of any of them must not find an older unit."""
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"{bpf_folder().parent}/tracer/kernel/struct_header.py" in loaded
    names = set(map(str, compiler.made_from()))
    assert {f"{bpf_folder()}/events.h", f"{bpf_folder()}/shared/kernel.h"} < names
    others = [name for name in loaded if name not in names and not name.endswith("/__init__.py")]
    assert [name for name in others if "/kernel/process/" not in name] == []


LOADED = """
import sys
import tracer.capture.bpf.compiled.compiler
for name, module in sys.modules.items():
    if name.startswith("tracer."):
        print(module.__file__)
"""


@pytest.mark.kernel
@pytest.mark.beside
def test_programs_of_the_same_sources_are_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two compilations of the same sources give equal objects, and none of them is made in this process."""
    objects = []
    for folder in (tmp_path / "one", tmp_path / "another", tmp_path / "one"):
        monkeypatch.setenv("MEMCG_TRACER_CACHE", str(folder))
        with closing(Programs(version=memory_hierarchy().version)) as programs:
            objects.append((programs._compilation._child != 0, programs._compilation.result()))
    assert [compiled for compiled, _ in objects] == [True, True, False]
    assert objects[0][1] == objects[1][1] == objects[2][1]


COLUMNS = 100
LINES = 400


def files() -> list[Path]:
    patterns = ("*.h", "*.bpf.c", "shared/*.h", "contents/*")
    return [path for pattern in patterns for path in bpf_folder().glob(pattern)]


def test_ordered_sources_have_every_file_once() -> None:
    """What a recording does not need is a unit of its own."""
    names = {str(path.relative_to(bpf_folder())) for path in files()}
    own = {name for name in names if name.startswith("contents/")}
    assert ordered_sources(bpf_folder()).keys() == names - own
    assert own < ordered_sources(bpf_folder(), "contents/*.bpf.c").keys()


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
    ring = f"BPF_RINGBUF_OUTPUT({stream.name}_ring, SIZED_BY_LOADER);"
    assert [path.name for path in files() if ring in path.read_text()] != []


@pytest.fixture(scope="module")
def header() -> str:
    return struct_header.header(Btf.load())


@pytest.mark.kernel
@pytest.mark.beside
@pytest.mark.parametrize("name", [path.name for path in bpf_folder().glob("*.bpf.c")])
def test_program_compiled_alone_has_all_that_it_uses(
    name: str, header: str, pytestconfig: pytest.Config
) -> None:
    text = "\n".join(ordered_sources(bpf_folder(), name).values())
    text = header + numbered_names(text) + text
    sizes = (
        "TRACER_CPUS",
        "TRACER_COMBINE_TICKS",
        "TRACER_TICK_NS",
        "TRACER_ROOTS",
        "TRACER_ACCOUNTS",
        "TRACER_SAMPLED",
        "TRACER_SAMPLES_A_RUN",
    )
    flags = [f"-D{define}=64" for define in (*sizes, "TRACER_WANTED_PATHS", "SAMPLES_CODE")]
    flags += [f"-DPAGE_SIZE={mmap.PAGESIZE}", f"-D{machine().macro}"]
    flags += ["-DTEST_RUN_ARGS=12", "-Wno-unused-function"]
    cache = Cache(Path(pytestconfig.cache.mkdir("bpf")))  # each takes a second, until a source changes
    compilation = Compilation(lambda *_: Source(text, flags, []), (name, flags), cache)
    assert compilation.result().object_file.programs
