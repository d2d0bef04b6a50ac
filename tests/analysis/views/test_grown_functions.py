"""Frames of stacks: their parts, and the innermost one of the program itself."""

from __future__ import annotations

import pytest

from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.grown_functions import (
    StackGrowth,
    frame_of,
    grown_functions,
    is_touched_by_allocator,
    of_program,
)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("grow [work]", CodeFrame("grow", None, None, "work")),
        ("grow+0x4f", CodeFrame("grow", None, None, None)),
        ("[libx.so]+0x12", CodeFrame("[libx.so]+0x12", None, None, "libx.so")),
        ("0x7f00", CodeFrame("[code]", None, None, None)),
        ("f.<locals>.<listcomp> [a b.py:5]", CodeFrame("f.<locals>.<listcomp>", "a b.py", 5, None)),
        (
            "operator new[](unsigned long) [work]",
            CodeFrame("operator new[](unsigned long)", None, None, "work"),
        ),
        ("JS:*grow app.js:3:9", CodeFrame("grow", "app.js", 3, None)),
        ("JS:~ /srv/app.js:1:1", CodeFrame("(anonymous)", "/srv/app.js", 1, None)),
        ("[python]", CodeFrame("[python]", None, None, None)),
        (
            "void [my.shop] Shop.Orders`1[int]::Keep(class [mscorlib]System.Object,int32)[OptimizedTier1]",
            CodeFrame("Shop.Orders`1[int]::Keep", None, None, "my.shop"),
        ),
        ("load.isra.0 [work] (rows.c:41)", CodeFrame("load", "rows.c", 41, "work")),
        ("Rows::add(int) [my work] (a b.h:7)", CodeFrame("Rows::add(int)", "a b.h", 7, "my work")),
        ("rs::load::hcc834971959b628d [rs] (rows.rs:9)", CodeFrame("rs::load", "rows.rs", 9, "rs")),
    ],
)
def test_frame_is_read_in_its_parts(name: str, frame: CodeFrame) -> None:
    assert frame_of(name) == frame


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("parse_row.constprop.0 [work]", "parse_row"),
        ("Rows::add(int) [clone .constprop.0] [clone .isra.0] [work]", "Rows::add(int)"),
        ("load.isra.0.cold [work]", "load"),
        ("rs::load::hcc834971959b628d [rs]", "rs::load"),
        (
            "_$LT$rs..Store$u20$as$u20$core..ops..drop..Drop$GT$::drop::h0123456789abcdef [rs]",
            "<rs::Store as core::ops::drop::Drop>::drop",
        ),
        ("rs::main::_$u7b$$u7b$closure$u7d$$u7d$::h0123456789abcdef [rs]", "rs::main::_{{closure}}"),
        ("Store::add(int) [work]", "Store::add(int)"),
    ],
)
def test_marks_of_compilers_are_left_out(name: str, function: str) -> None:
    assert frame_of(name).function == function


@pytest.mark.parametrize(
    "library",
    [
        "__memset_avx512_unaligned_erms [libc.so.6]",
        "__memset_avx2_unaligned [static]",
        "_int_malloc [static]",
        "je_malloc [redis]",
        "ztrymalloc_usable_internal [redis]",
        "xrealloc [git]",
        "palloc0 [postgres]",
        "MemoryContextAllocZeroAligned [postgres]",
        "ngx_pnalloc [nginx]",
        "av_mallocz [libavutil.so.59]",
        "Perl_safesyscalloc [perl]",
        "Perl_more_sv [perl]",
        "sqlite3DbMallocRaw [libsqlite3.so.0.8.6]",
        "jv_mem_alloc [libjq.so.1.0.4]",
        "_safe_emalloc [php]",
        "WKS::GCHeap::Alloc(gc_alloc_context*, unsigned long, unsigned int) [libcoreclr.so]",
        "hostfxr_main [libhostfxr.so]",
        "void [System.Private.CoreLib] System.Collections.Generic.List`1[int]::AddWithResize(!0)[PreJIT]",
        "stub<6> GenerateLookupStub<4>",
        "operator new(unsigned long) [static]",
        "operator new(unsigned long) [libc++abi.so.1]",
        "void std::vector<Row, std::allocator<Row> >::_M_realloc_append<Row>(Row&&) [work]",
        "std::vector<std::vector<double> >::reserve(unsigned long) [work]",
        "void std::vector<std::__cxx11::basic_string<char, std::char_traits<c… [work]",
        "__gnu_cxx::new_allocator<Row>::allocate(unsigned long, void const*) [work]",
        "__rust_alloc [rs]",
        "__rdl_alloc [rs]",
        "alloc::raw_vec::RawVecInner$LT$A$GT$::finish_grow::h1da5c3929bbd3b48 [rs]",
        "core::ptr::write::h1da5c3929bbd3b48 [rs]",
        "hashbrown::raw::RawTable$LT$T$GT$::reserve_rehash::h1da5c3929bbd3b48 [rs]",
        "_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..clone..Clone$GT$::clone::h1da5c3929bbd3b48 [rs]",
        "_$LT$T$u20$as$u20$alloc..string..ToString$GT$::to_string::h1da5c3929bbd3b48 [rs]",
        "_RNvNtCsjrHSEGnQ3l9_5alloc7raw_vec11finish_grow [rs]",
        "_RNvMNtCsjrHSEGnQ3l9_5alloc5sliceSNtCs32gj3y4fnmh_2rs3Row6to_vec [rs]",
        "_RNvMs_NtCsjrHSEGnQ3l9_5alloc7raw_vecINtB4_6RawVecNtCs32gj3y4fnmh_2rs3RowE8grow_one [rs]",
        "_RNvXNtCsj_5alloc3vecINtB2_3VecNtCs1_2rs3RowENtNtCsg_4core5clone5Clone5clone [rs]",
        "_RNvCsgY6Mt91CT9J_7___rustc12___rust_alloc [rs]",
    ],
)
def test_library_in_any_module_is_not_the_program(library: str) -> None:
    stack = (library, "load [work]", "main [work]")
    assert of_program(stack) == stack[1:]
    assert of_program((library,)) == (library,), "if there is no better one"


@pytest.mark.parametrize(
    "own",
    [
        "std::vector<Row> rows_of<Row>(Reader&) [work]",
        "void fill<std::string>(std::vector<std::string>&) [work]",
        "(anonymous namespace)::fill(std::vector<int>&) [work]",
        "Store::operator()(std::string const&) [work]",
        "standard::fill() [work]",
        "_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$rs..Load$GT$::load::h1da5c3929bbd3b48 [rs]",
        "_$LT$rs..Store$u20$as$u20$core..clone..Clone$GT$::clone::h1da5c3929bbd3b48 [rs]",
        "_RNvCsjrHSEGnQ3l9_2rs9load_rows [rs]",
        "_RNvMCs32gj3y4fnmh_2rsNtB2_5Store4load [rs]",
        "_RNvXCs32gj3y4fnmh_2rsSNtB2_3RowNtB2_4Load4load [rs]",
        "_RNvXCs32gj3y4fnmh_2rsNtB2_5StoreNtNtCsgEmfK2I1SDS_4core5clone5Clone5clone [rs]",
        "int32 [shop] Shop.Orders::Keep(int32)[QuickJitted]",
        "demalloc_rows [work]",
        "mallocator_fill [work]",
        "memory_pool_grow [work]",
    ],
)
def test_code_that_uses_a_library_is_the_program(own: str) -> None:
    assert of_program(("__memset [libc.so.6]", own, "main [work]")) == (own, "main [work]")


def test_nameless_functions_of_an_allocator_are_not_the_code() -> None:
    """A stripped program names what it exports, and not the functions that these call."""
    inner = ("[postgres]+0x5f1580+0x31", "[postgres]+0x5f2a00+0x8")
    stack = (*inner, "palloc [postgres]", "[postgres]+0x33efa0+0x4", "ExecScan [postgres]")
    assert of_program(stack) == stack[3:]
    assert of_program((*inner, "ExecScan [postgres]")) == (*inner, "ExecScan [postgres]")


def test_inlined_code_of_a_standard_library_is_not_the_program() -> None:
    """Its functions may have any name; their file tells."""
    stack = (
        "emplace_back<int, int> [work] (bits/vector.tcc:117)",
        "_RNvXs_NtCsjrHSEGnQ3l9_5alloc5allocNtB4_6Global8allocate [work] (alloc/src/alloc.rs:429)",
        "build [work] (rows.cpp:26)",
        "main [work] (rows.cpp:40)",
    )
    assert of_program(stack) == stack[2:]


def test_native_code_with_lines_is_no_script() -> None:
    stack = ("fill [rows.so] (rows.c:9)", "load [app.py:41]")
    assert of_program(stack) == stack[1:]
    assert not frame_of(stack[0]).is_scripted
    assert frame_of(stack[1]).is_scripted


def test_script_is_the_program_whatever_extension_it_calls() -> None:
    extension = "PyArray_NewFromDescr_int [_multiarray_umath.cpython-313-x86_64-linux-gnu.so]"
    stack = ("__memset [libc.so.6]", extension, "load [app.py:41]", "main [app.py:88]")
    assert of_program(stack) == stack[2:]


def test_caller_of_a_python_function_without_a_name_is_not_blamed() -> None:
    stack = ("__memset [libc.so.6]", "[python]", "main [app.py:88]")
    assert of_program(stack) == stack[1:]
    extension = ("__memset [libc.so.6]", "fill [rows.so]", "[python]", "[python]")
    assert of_program(extension) == extension[1:], "no function of the script has a name"


def test_stack_without_a_function_of_the_program_stays_whole() -> None:
    frames = ["malloc [libc.so.6]", "0x7f00"]
    assert of_program(frames) == tuple(frames)


NUMPY = (
    "__memset_avx2 [libc.so.6]",
    "ones [numpy/_core/numeric.py:191]",
    "decode [python3.13/json/decoder.py:9]",
)
FROZEN = ("<module> [<frozen runpy>:88]", "[python]")


@pytest.mark.parametrize(
    ("outer", "innermost"),
    [
        (("load_rows [app.py:5]", "main [app.py:10]"), "load_rows [app.py:5]"),
        (("<module> [notebook.py:1]", *FROZEN), "<module> [notebook.py:1]"),
        (("<module> [<string>:1]",), "<module> [<string>:1]"),
        (("load_rows [nightly:5]", "<module> [nightly:9]"), "load_rows [nightly:5]"),
        # Programs that are installed as packages: a launcher or the interpreter has called them.
        (("<module> [gunicorn:8]",), "ones [numpy/_core/numeric.py:191]"),
        (FROZEN, "ones [numpy/_core/numeric.py:191]"),
    ],
)
def test_library_of_python_is_not_the_program_that_calls_it(outer: tuple[str, ...], innermost: str) -> None:
    assert of_program((*NUMPY, *outer))[0] == innermost


def test_function_of_node_is_of_the_program_in_any_file() -> None:
    assert of_program(("malloc [node]", "JS:*grow node_modules/a/index.js:3:9"))[0].startswith("JS:*grow")


def test_callers_of_one_function_have_shares_of_all_growth() -> None:
    """Two lines of a caller are one caller. One with less than a tenth is left out, as code is."""

    def grown(nr_bytes: int, *callers: str) -> StackGrowth:
        return StackGrowth(
            "work", 41, ("new_text [work]", *callers, "main [work]"), (), nr_bytes, nr_bytes**2
        )

    several = [
        grown(40, "insert [work] (work.c:7)"),
        grown(10, "insert [work] (work.c:9)"),
        grown(25, "update [work]"),
        grown(5, "rename [work]"),
        StackGrowth("work", 41, ("main [work]",), (), 20, 20**2),
    ]
    code, other = grown_functions({"anon": several})
    assert (code.share, [frame.function for frame in code.frames]) == (0.8, ["new_text"])
    assert [(one.share, one.frame.function, one.frame.line) for one in code.callers] == [
        (0.5, "insert", 7),
        (0.25, "update", None),
    ]
    assert (other.share, other.callers) == (0.2, ())

    (code,) = grown_functions({"anon": [grown(80, "insert [work]"), grown(20, "update [work]")]})
    assert ([frame.function for frame in code.frames], code.callers) == (["new_text", "insert", "main"], ())


@pytest.mark.parametrize(
    ("comms", "shown"),
    [
        (("worker-0", "worker-1", "worker-12"), ("worker-*", 3)),
        (("python", "python3"), ("python*", 2)),
        (("7", "12"), None),
        (("a", "b"), None),
    ],
)
def test_processes_whose_names_differ_by_a_number_are_together(
    comms: tuple[str, ...], shown: tuple[str, int] | None
) -> None:
    grown = [StackGrowth(comm, pid, ("fill [work]",), (), 10, 100) for pid, comm in enumerate(comms)]
    found = grown_functions({"anon": grown})
    if shown is None:
        assert sorted(code.process.comm or "" for code in found) == sorted(comms)
    else:
        (code,) = found
        assert (code.process.comm, code.process.processes) == shown


PERL = ("malloc [libc.so.6]", "Perl_sv_grow [perl]", "[perl]+0xe04e0+0x9", "main [perl]")
OF_RUBY = ("[libruby.so.3.3]+0x9", "[libruby-3.3.so]+0x8")
COLLECTS = "v8::internal::Scavenger::Process()"
OF_PYTHON = ("[python3.13]+0x5", "main [python3.13]")
NODE = ("__memset [libc.so.6]", "v8::internal::Heap::Fill(int) [node]", "uv_run [node]")


@pytest.mark.parametrize(
    ("stack", "shown", "language"),
    [
        (PERL, ("a function of Perl whose name is not known",), "perl"),
        (OF_RUBY, ("a function of Ruby whose name is not known",), "ruby"),
        (("_emalloc [php8.4]", "[php8.4]+0x5"), ("a function of PHP whose name is not known",), "php"),
        (("[libpypy3.11-c.so]+0x5",), ("a function of PyPy whose name is not known",), "pypy"),
        (NODE, ("a function of Node.js whose name is not known", "uv_run (node)"), "node"),
        (OF_PYTHON, ("a Python function whose name could not be read",), "python"),
        (
            ("v8::internal::Scavenger::Process() [node]", NODE[2]),
            ("v8::internal::Scavenger::Process() (node)",),
            "native",
        ),
        # Code that the interpreter calls has a name; and so has what has the interpreter within it.
        (("fill [Rows.so]", *PERL[1:]), ("fill (Rows.so)",), "native"),
        (
            ("malloc [libc.so.6]", "Perl_sv_grow [libperl.so.5.40]", "handle [irssi]"),
            ("a function of Perl whose name is not known", "handle (irssi)"),
            "perl",
        ),
        # Any program may be called so.
        (("malloc [libc.so.6]", "main.load [node]"), ("main.load (node)",), "native"),
        # The callers were not found: the stack of the sample could not be copied.
        (("[libc.so.6]+0x17c300+0xd8",), ("code that could not be named",), "native"),
        (("malloc [libjemalloc.so.2]", "0x7f11"), ("code that could not be named",), "native"),
        (("memset [static]",), ("code that could not be named",), "native"),
    ],
)
def test_code_of_an_interpreter_or_beneath_a_program_is_not_told_as_that_of_the_program(
    stack: tuple[str, ...], shown: tuple[str, ...], language: str
) -> None:
    (code,) = grown_functions({"anon": [StackGrowth("work", 41, stack, (), 10, 100)]})
    assert tuple(map(str, code.frames))[: len(shown)] == shown
    assert code.frames[0].is_nameless == shown[0].endswith(("known", "read", "named"))
    assert code.language == language


@pytest.mark.parametrize(
    ("inner", "is_inside"),
    [
        (("[libc.so.6]+0xa1020+0xe54", "malloc [libc.so.6]"), True),
        (("CentralFreeList::Populate() [libtcmalloc.so.4]", "malloc [libtcmalloc.so.4]"), True),
        (("[libc.so.6]+0x17c300+0xd8",), False),
        (("[libc.so.6]+0x17c300+0xd8", "calloc [libc.so.6]"), False),
        (("[libc.so.6]+0x17c300+0xd8", "realloc [libc.so.6]"), False),
    ],
)
def test_memory_that_malloc_touches_itself_is_told_apart(inner: tuple[str, ...], is_inside: bool) -> None:
    assert is_touched_by_allocator((*inner, "load [work]", "main [work]")) == is_inside


def test_addresses_of_short_processes_are_code_without_a_name() -> None:
    """The address of one function differs in each process, and is no name even if all samples share it."""

    def grown(tgid: int, *addresses: str) -> StackGrowth:
        return StackGrowth("head", tgid, addresses, (), 10, 100)

    for samples in (
        [grown(pid, f"0x7f{pid:02}3a7", "0x7f11") for pid in range(20)],
        [grown(41, "0x7f3a7", "0x7f11"), grown(41, "0x7f3a7", "0x7f22")],
        [grown(41, "0x7f3a7")],
    ):
        (code,) = grown_functions({"shmem": samples})
        assert (code.share, code.process.processes) == (1.0, len({one.tgid for one in samples}))
        assert [str(frame) for frame in code.frames] == ["code that could not be named"]
        assert code.frames[0].is_nameless


def test_addresses_among_the_callers_are_one_frame_without_a_name() -> None:
    calls = [("read_block [dd]", f"0x7f{n}", f"0x7e{n}", "main [dd]") for n in range(9)]
    (code,) = grown_functions({"anon": [StackGrowth("dd", 41, one, (), 10, 100) for one in calls]})
    assert [str(frame) for frame in code.frames] == [
        "read_block (dd)",
        "code that could not be named",
        "main (dd)",
    ]
