"""Lines of native code: a library that is compiled here, whose functions are inlined."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from support.mapped_library import mapped_library

from tracer.capture.symbols import source_lines, unwinding
from tracer.capture.symbols.address_names import SourceFrame
from tracer.capture.symbols.source_lines import SourceLines, shown_source
from tracer.capture.symbols.symbol_tables import CodeSymbols, SymbolProcess
from tracer.capture.symbols.unwinding import Unwinder

pytestmark = [
    pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
]

SOURCE = """\
extern "C" volatile int sink;
volatile int sink;
namespace store {
static inline __attribute__((always_inline)) void inner(int value)
{
    sink = value;
}
inline __attribute__((always_inline)) void middle(int value)
{
    inner(value + 1);
}
}
extern "C" void outer(int value)
{
    store::middle(value);
}
"""
DEEP = "\n".join(
    [
        "extern volatile int sink; volatile int sink;",
        "static inline __attribute__((always_inline)) void f0(void) { sink = 1; }",
        *(
            f"static inline __attribute__((always_inline)) void f{one}(void) {{ f{one - 1}(); }}"
            for one in range(1, 50)
        ),
        'extern "C" void outer(int value) { f49(); }',
    ]
)


def mapped(folder: Path, source: Path, *flags: str) -> int:
    """Return the address of the function `outer` of a library (`mapped_library`)."""
    return ctypes.cast(mapped_library(folder, source, *flags).outer, ctypes.c_void_p).value or 0


def sources(folder: Path, source: str, *flags: str) -> Iterator[tuple[SourceFrame, ...]]:
    """Yield what is at each byte of the function `outer` of a source."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.cpp").write_text(source)
    address = mapped(folder, folder / "rows.cpp", *flags)
    unwinder = Unwinder(7, folder)
    for at in range(address, address + 64):
        found = unwinder.resolve(at)
        if found.symbol != "outer":
            return
        yield found.source


def test_inlined_functions_are_frames_with_the_lines_of_their_calls(tmp_path: Path) -> None:
    """A function of one unit only (`static`) has no mangled name, so it is named without its arguments."""
    found = {*sources(tmp_path, SOURCE, "-g")}
    assert (
        SourceFrame("store::inner", "rows.cpp", 6),
        SourceFrame("store::middle(int)", "rows.cpp", 10),
        SourceFrame(None, "rows.cpp", 15),
    ) in found
    assert {one[-1] for one in found} <= {SourceFrame(None, "rows.cpp", line) for line in (14, 15, 16)}, (
        "the symbol's own function is the last one"
    )


def test_functions_of_a_unit_are_listed_once_and_no_address_walks_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walks of libdw take milliseconds for each address of a large unit. They find the same."""
    found = [*sources(tmp_path / "listed", SOURCE, "-g")]
    with monkeypatch.context() as patched:
        patched.setattr(source_lines._Functions, "at", lambda *_: None)
        assert [*sources(tmp_path / "walked", SOURCE, "-g")] == found

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the whole unit was searched")

    monkeypatch.setattr(SourceLines, "_enclosing", refuse)
    in_c = 'extern volatile int sink; volatile int sink; extern "C" void outer(int v) { sink = v; }'
    assert SourceFrame(None, "rows.cpp", 1) in {one[-1] for one in sources(tmp_path / "refused", in_c, "-g")}


def test_file_without_debug_information_has_no_lines(tmp_path: Path) -> None:
    assert {*sources(tmp_path, SOURCE, "-g0")} == {()}


def test_too_many_inlined_functions_are_cut_and_the_last_one_is_right(tmp_path: Path) -> None:
    deepest = max(sources(tmp_path, DEEP, "-g"), key=len)
    names = [one.function for one in deepest]
    assert names == [*(f"f{one}" for one in range(32)), None]
    assert deepest[-1].line == len(DEEP.splitlines())


@pytest.mark.parametrize(
    ("flag", "bound"), [("-gz=zlib", "_MOST_UNPACKED_BYTES"), ("-gz=none", "_MOST_LINES_BYTES")]
)
def test_large_file_is_not_searched_for_lines(
    flag: str, bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usual").mkdir()
    assert any(sources(tmp_path / "usual", SOURCE, "-g", flag))
    (tmp_path / "large").mkdir()
    monkeypatch.setattr(unwinding, bound, 100)
    assert {*sources(tmp_path / "large", SOURCE, "-g", flag)} == {()}


def test_lines_are_looked_for_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_lines, "_MOST_CPU_S", 1e-9)
    first, *others = sources(tmp_path, SOURCE, "-g")
    assert first
    assert {*others} == {()}


def not_asked() -> NoReturn:
    raise AssertionError("libdw names all code in files")


def test_file_that_the_debug_information_names_is_not_opened(tmp_path: Path) -> None:
    """Each name in the library would be in another file (DW_FORM_GNU_strp_alt), by an absolute path. It is a
    pipe without a writer, whose opening would last for ever."""
    source, assembly, pipe = tmp_path / "rows.cpp", tmp_path / "rows.s", tmp_path / "pipe"
    source.write_text(SOURCE)
    os.mkfifo(pipe)
    subprocess.run(["c++", "-O2", "-g", "-dA", "-fPIC", "-S", "-o", assembly, source], check=True)
    text, names = re.subn(
        r"\.(?:uleb128|byte)\s+(?:0xe|14)\s.*DW_FORM_strp\b.*", ".uleb128 0x1f21", assembly.read_text()
    )
    assert names
    link = f'.section .gnu_debugaltlink,"",@progbits\n.string "{pipe}"\n.quad 1, 2\n'
    assembly.write_text(f"{text}\n{link}")
    address = mapped(tmp_path, assembly)
    table = SymbolProcess(lambda: CodeSymbols(not_asked, 7, tmp_path))
    found = table.resolve_all(range(address, address + 64))
    table.close()
    inlined = [one for one in found if one.symbol == "outer" and len(one.source) == 3]
    assert inlined
    assert inlined[0].source[-1] == SourceFrame(None, "rows.cpp", 15)
    assert inlined[0].source[1] == SourceFrame("(anonymous)::(anonymous)", "rows.cpp", 10)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/a/app/rows.cpp", "rows.cpp"),
        ("rows.cpp", "rows.cpp"),
        ("/usr/include/c++/14/bits/stl_vector.h", "bits/stl_vector.h"),
        ("/usr/include/x86_64-linux-gnu/c++/14/bits/gthr-default.h", "bits/gthr-default.h"),
        ("/usr/lib/llvm-19/include/c++/v1/vector", "vector"),
        (f"/rustc/{'0a' * 20}/library/alloc/src/raw_vec.rs", "alloc/src/raw_vec.rs"),
        ("/src/c++/rows.cpp", "rows.cpp"),
        ("/src/library/alloc.rs", "alloc.rs"),
        ("/src/", ""),
        ("/usr/include/c++/14/", ""),
    ],
)
def test_file_of_a_standard_library_is_shown_with_its_folder(path: str, shown: str) -> None:
    assert shown_source(path) == shown


def test_place_in_a_folder_is_not_known() -> None:
    assert source_lines._place(b"/src/", 7) == (None, None)
    assert source_lines._place(b"/src/rows.cpp", 7) == ("rows.cpp", 7)
