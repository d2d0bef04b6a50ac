"""The compiler's child process: its errors, and its use of cached objects."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tracer.capture.bpf import compiler
from tracer.capture.bpf.compiler import Compilation
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.object_cache import ObjectCache
from tracer.capture.bpf.object_file import ObjectFile, ProgramCode
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="without root, the error is about root")


def bcc_that(does: Callable[..., Any], version: str = "1") -> ModuleType:
    module = ModuleType("bcc")
    module.__dict__.update(BPF=does, __version__=version)
    return module


def compilation(bcc: ModuleType, folder: Path, *, text: str = "", flags: tuple[str, ...] = ()) -> Compilation:
    (folder / "include").mkdir(exist_ok=True)
    return Compilation(bcc, text, [*flags], include=folder / "include", cache=ObjectCache(folder / "cache"))


def says(*lines: str, then: Callable[[], Any]) -> Callable[..., Any]:
    """Return a compiler that writes as BCC and LLVM do: to the descriptors, and by print."""

    def act(**_: object) -> None:
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
    act: Callable[..., Any], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failed = compilation(bcc_that(act), tmp_path)
    with pytest.raises(TracerError) as error:
        failed.result()
    assert str(error.value) == f"BCC cannot compile the BPF programs: {words}; see memcg-tracer doctor"
    assert capfd.readouterr() == ("", ""), "the output is in the error only"
    failed.stop()


def test_stop_kills_a_compiler_that_runs(tmp_path: Path) -> None:
    sleeping = compilation(bcc_that(lambda **_: time.sleep(600)), tmp_path)
    child = sleeping._child
    sleeping.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    sleeping.stop()


def test_cached_object_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of anything that the object was made from compiles again."""

    def read_object(_bcc: ModuleType, compiled: str) -> ObjectFile:
        return ObjectFile((), {compiled: ProgramCode(b"", ())})

    monkeypatch.setattr(compiler, "read_object", read_object)
    compiles = bcc_that(lambda **given: str(given))

    def is_compiled(bcc: ModuleType, *, text: str = "a", flags: tuple[str, ...] = ("-Db",)) -> bool:
        one = compilation(bcc, tmp_path, text=text, flags=flags)
        child = one._child
        assert one.result().programs.keys() == {str({"text": text.encode(), "cflags": [*flags]})}
        return child != 0

    assert is_compiled(compiles)
    assert not is_compiled(compiles)
    assert is_compiled(compiles, text="ab")
    assert is_compiled(compiles, flags=("-Dc",))
    assert is_compiled(bcc_that(compiles.BPF, version="2"))
    (tmp_path / "include/a.h").write_text("x")
    assert is_compiled(compiles)
    assert not is_compiled(compiles)


@pytest.mark.kernel
def test_programs_of_the_same_sources_are_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two compilations of the same sources give equal objects."""
    objects = []
    for folder in (tmp_path / "one", tmp_path / "another", tmp_path / "one"):
        monkeypatch.setenv("MEMCG_TRACER_CACHE", str(folder))
        with closing(Programs(Btf.load(), version=memory_hierarchy().version)) as programs:
            objects.append((programs._compilation._child != 0, programs._compilation.result()))
    assert [compiled for compiled, _ in objects] == [True, True, False]
    assert objects[0][1] == objects[1][1] == objects[2][1]
