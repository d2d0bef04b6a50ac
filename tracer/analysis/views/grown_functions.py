"""The functions of a program that made memory grow, from stacks with their bytes; and the parts of a frame.

The innermost functions of a stack are those of libraries that hand out memory, or of an interpreter. They are
the same for every program, and nobody can change them. So growth is told by the innermost function of the
program itself, with its callers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from tracer.analysis.results.memory import (
    NAMELESS_CODE,
    NAMELESS_SCRIPTS,
    Caller,
    CodeFrame,
    GrownCode,
    GrownProcess,
    name_without_number,
    shared_name,
)
from tracer.analysis.views import rust_names
from tracer.program_modules import interpreter, is_beneath, may_be_of_program
from tracer.stored_names import IN_SOURCE, NAMELESS_PYTHON

_FRAME: Final = re.compile(r"(?P<function>.*?)(?:\+0x[0-9a-f]+)?(?: \[(?P<place>[^\]]*)\])?", re.DOTALL)
_UNNAMED: Final = re.compile(r"(?P<function>\[(?P<module>[^\]]+)\]\+0x[0-9a-f]+)(?:\+0x[0-9a-f]+)?")
_PYTHON_PLACE: Final = re.compile(r"(?P<file>.+):(?P<line>\d+)")
_ALLOCATOR: Final = re.compile(
    r"(operator (new|delete)|(__)?(rust|rdl|rg)_\w*alloc|_int_(malloc|realloc|memalign)|sysmalloc|s?brk|mmap"
    r"|(__libc_|__GI_|_rjem_|je_|tc_|mi_|g_|ztry|try|do_|[xz])*(malloc|calloc|realloc|memalign|strn?dup)"
    r"|aligned_alloc|posix_memalign|p?valloc|(__)?(mem(set|cpy|move)|str[ln]?cpy)"
    r"|(re)?palloc|pn?strdup|MemoryContextAlloc|AllocSet(Alloc|Realloc)"
    r"|(apr|ngx)_(p[nc]?alloc|alloc|calloc|memalign)|av_(malloc|mallocz|calloc|realloc|reallocp)"
    r"|Perl_(safesys(malloc|calloc|realloc)|more_(sv|bodies))|sqlite3(Db)?_?(Malloc|Realloc|malloc|realloc)\w*"
    r"|jv_mem_\w*alloc|_?(safe_|p)?f?e(malloc|calloc|realloc)|_safe_\w*(malloc|realloc))(?![a-z])"
)
"""Functions that hand out or fill memory, in any module: a program may contain them. The last two lines are
those of PostgreSQL, of Apache and nginx, of FFmpeg, Perl, SQLite, jq and PHP."""
_HANDS_OUT: Final = re.compile(
    r"(__libc_|__GI_|_rjem_|je_|tc_|mi_)?(malloc|memalign|aligned_alloc)|posix_memalign"
)
"""Functions that hand out memory without filling it, as calloc() and realloc() do."""
_COLLECTOR: Final = re.compile(
    r"GarbageCollect|scavenge_(block|one|stack|loop|until_all_done|large|static|mutable_list)1?"
    r"|(caml_)?oldify_\w+|caml_(empty_minor_heap|major_collection)\w*"
    r"|erts_garbage_collect\w*|(WKS|SVR)::gc_heap::(garbage_collect|gc1)\b.*"
    r"|.*\bv8::internal::((\w+::)?(Scaveng|Evacuat|MarkCompact)|Heap::(CollectGarbage|PerformGarbage)).*"
)
"""Functions of collectors that move objects: of Haskell (GHC), OCaml, Erlang, .NET and V8."""
_FRAMEWORK_OF_DOTNET: Final = re.compile(r"mscorlib|netstandard|(System|Microsoft)(\..*)?")
_STUB_OF_DOTNET: Final = re.compile(r"stub<\d+> ")
_NOT_THE_CODE: Final = frozenset({"std", "__gnu_cxx", "core", "alloc", "hashbrown", "__rustc"})
"""Namespaces of the standard library of C++, and crates of that of Rust."""
_REFERENCE: Final = re.compile(r"(&('\w+ )?(mut )?|dyn )+")
_TEMPLATE_ARGUMENTS: Final = re.compile(r"<[^<>]*>")
_COPY: Final = r"(\.(constprop|isra|part|cold|lto_priv|llvm)(\.\d+)?)+"
_CLONE: Final = re.compile(rf"({_COPY}| \[clone {_COPY}\])+$")  # the second form: of a name of C++
_RUNTIME_OF_GO: Final = ("runtime.", "internal/runtime/")
SCRIPT_OF_NODE: Final = re.compile(
    r"(?:JS|LazyCompile|Function):[*~^+]?(?P<function>\S*) (?P<file>[^:]+):(?P<line>\d+)(?::\d+)?", re.DOTALL
)
_ANONYMOUS: Final = "(anonymous)"  # as V8's own profiler calls it
METHOD_OF_DOTNET: Final = re.compile(
    r"[^\[]*\[(?P<assembly>[^\]]+)\] (?P<method>[^(]+::[^(]+)\(.*\)\[(?P<compiled>[A-Z]\w*)\]", re.DOTALL
)
"""A line of the perf map of .NET: `void [app] Shop.Orders::Keep(int32)[OptimizedTier1]`."""


@lru_cache(maxsize=1 << 14)
def frame_of(name: str) -> CodeFrame:
    """Return a recorded frame in its parts: `function [module]`, perhaps with ` (file:line)`, `function
    [file.py:line]`, a function of Node or .NET by its perf map, or `NAMELESS_CODE` for an address, which is
    another one in each process. Compilers' marks on a symbol are left out, and the place within a function
    that has no symbol (`[module]+0xfunction+0xoffset`)."""
    if unnamed := _UNNAMED.match(name):
        return CodeFrame(unnamed["function"], None, None, unnamed["module"])
    if in_source := IN_SOURCE.fullmatch(name):
        native = frame_of(in_source["native"])
        return replace(native, file=in_source["file"], line=int(in_source["line"]))
    match = _FRAME.fullmatch(name)
    assert match is not None
    function, place = match["function"], match["place"]
    if script := SCRIPT_OF_NODE.fullmatch(name):
        return CodeFrame(script["function"] or _ANONYMOUS, script["file"], int(script["line"]), None)
    if method := METHOD_OF_DOTNET.fullmatch(name):
        return CodeFrame(method["method"], None, None, method["assembly"])
    python = _PYTHON_PLACE.fullmatch(place) if place is not None else None
    if python:
        return CodeFrame(function, python["file"], int(python["line"]), None)
    plain = NAMELESS_CODE if _is_address(name) else _plain(function) or name
    return CodeFrame(plain, None, None, place)


def _plain(symbol: str) -> str:
    """Return a symbol without GCC's names of copies of a function, and one of Rust as it is written."""
    return rust_names.name_of(symbol) or _CLONE.sub("", symbol)


def of_program(frames: Sequence[str]) -> tuple[str, ...]:
    """Return the frames from the innermost one of the program itself; all, if none is known to be.

    The program of an interpreter is the script, whatever extension or library it calls; a library, if only a
    launcher of it is outside of libraries. A function of Python that could not be named counts as well: its
    caller did not make the memory grow.
    """
    for is_right in (_is_of_script, _is_scripted):
        if any(map(is_right, frames)):
            at = next(at for at, name in enumerate(frames) if is_right(name) or name == NAMELESS_PYTHON)
            return tuple(frames[at:])
    for at, name in enumerate(frames):
        if _is_of_program(name) and not _is_inside_allocator(frames, at):
            return tuple(frames[at:])
    return tuple(frames)


def _told(frames: Sequence[str]) -> tuple[str, ...]:
    """Return the frames by which growth is told: those of `of_program`, except in two cases.

    Functions of a script whose names are not known are one frame in front, which names the interpreter. Its
    garbage collector is no function of a script. Frames that are all of the C library or of an allocator,
    such as memset() without its caller, are `NAMELESS_CODE`.
    """
    own = of_program(frames)
    if any(_is_scripted(name) or _COLLECTOR.fullmatch(frame_of(name).function) for name in frames):
        return own
    is_own = bool(own) and _is_of_program(own[0])
    for name in frames[: len(frames) - len(own)] if is_own else frames:
        frame = frame_of(name)
        if frame.module and (runs := interpreter(frame.module, frame.function)):
            return (f"[{runs}]", *(own if is_own else ()))
    known = [frame_of(name) for name in frames if not _is_address(name)]
    is_nobodys = known and all(map(_is_beneath_programs, known))
    return (NAMELESS_CODE,) if is_nobodys else own


def _is_beneath_programs(frame: CodeFrame) -> bool:
    """Return whether a function is of the C library or an allocator, which a program may contain."""
    return bool(frame.module and (is_beneath(frame.module) or _ALLOCATOR.match(frame.function)))


def _is_inside_allocator(frames: Sequence[str], at: int) -> bool:
    """Return whether a function without a name was called by one that hands out memory, perhaps by others
    without a name. An allocator has functions of its own, which a stripped program does not name."""
    if not _UNNAMED.match(frames[at]):
        return False
    named = next((name for name in frames[at:] if not _UNNAMED.match(name)), "")
    return bool(_ALLOCATOR.match(frame_of(named).function))


def is_touched_by_allocator(frames: Sequence[str]) -> bool:
    """Return whether memory grew within malloc() itself, as it wrote a list of free pieces or the size of the
    next one."""
    inner = frames[: len(frames) - len(of_program(frames))]
    return any(_HANDS_OUT.fullmatch(frame_of(name).function) for name in inner)


def _is_scripted(name: str) -> bool:
    return frame_of(name).is_scripted


@lru_cache(maxsize=1 << 14)
def _is_of_script(name: str) -> bool:
    """Return whether a frame is of a script, and not of a library of Python, whose file is in a folder
    (capture/symbols/cpython_names.py), of the interpreter (`<frozen runpy>`) or of a launcher in `bin`, which
    is a module without functions and its file has no suffix."""
    frame = frame_of(name)
    if not frame.is_scripted or SCRIPT_OF_NODE.fullmatch(name):
        return frame.is_scripted
    assert frame.file is not None
    is_launcher = frame.function == "<module>" and not frame.file.endswith((".py", ">"))
    return "/" not in frame.file and not frame.file.startswith("<frozen ") and not is_launcher


@lru_cache(maxsize=1 << 14)
def _is_of_program(name: str) -> bool:
    if name.startswith(("0x", "[vdso]", *_RUNTIME_OF_GO)) or _STUB_OF_DOTNET.match(name):
        return False
    if method := METHOD_OF_DOTNET.fullmatch(name):
        return _FRAMEWORK_OF_DOTNET.fullmatch(method["assembly"]) is None
    frame = frame_of(name)
    if frame.module and not may_be_of_program(frame.module):
        return False
    if frame.module and interpreter(frame.module, frame.function):
        return _COLLECTOR.fullmatch(frame.function) is not None
    if frame.file and "/" in frame.file:  # a library's (capture/symbols/source_lines.py)
        return False
    return not (_ALLOCATOR.match(frame.function) or _is_library(frame.function))


def is_of_collector(code: GrownCode) -> bool:
    """Return whether code is a garbage collector, which moves what other code made."""
    frames = (*code.frames, *(caller.frame for caller in code.callers))
    return any(_COLLECTOR.fullmatch(frame.function) for frame in frames)


def _is_library(function: str) -> bool:
    """Return whether a function is of the standard library of C++ or Rust, perhaps compiled into the program.

    `void std::vector<Row>::push_back(Row&&)` is, `std::string name_of<Row>(Row&)` is not: the first is the
    type of the result. `<alloc::vec::Vec<T> as core::clone::Clone>::clone` is; with a trait of the program's
    it is not.
    """
    if function.startswith("<"):
        return all(map(_is_of_library, rust_names.implemented(function)))
    plain, before = function.replace("(anonymous namespace)", ""), ""
    while plain != before:
        plain, before = _TEMPLATE_ARGUMENTS.sub("", plain), plain
    qualified = re.split("[(<]", plain, maxsplit=1)[0].rpartition(" ")[2]
    return "::" in qualified and qualified.partition("::")[0] in _NOT_THE_CODE


def _is_of_library(rust: str) -> bool:
    """Return whether a type or trait of Rust is of the standard library: one in `_NOT_THE_CODE`, and those
    without a path, which are of the language or a parameter. Nobody else may give functions to these."""
    path = _REFERENCE.sub("", rust).partition("<")[0]
    return path.startswith(("[", "(", "*")) or "::" not in path or path.partition("::")[0] in _NOT_THE_CODE


LEAST_SHARE: Final = 0.1
"""Code, or a caller of it, with a smaller share of the sampled growth is left out."""
MOST_FRAMES: Final = 24
_NEARLY_ALL: Final = 0.8

_SLAB: Final = re.compile(r"(__)?(kmem_cache_alloc|kmalloc|slab_|memcg_slab|allocate_slab)")


class StackGrowth(NamedTuple):
    """Samples with one stack: `comm` and `tgid` of the process, frames innermost first, the bytes, and the
    sum of the squares of the bytes of each sample."""

    comm: str | None
    tgid: int
    user: tuple[str, ...]
    kernel: tuple[str, ...]
    nr_bytes: int
    squares: float


def grown_functions(samples: Mapping[str, Sequence[StackGrowth]]) -> tuple[GrownCode, ...]:
    """Return the functions that made memory grow, the largest share first.

    `samples`: those of each kind (anon, shmem, file, kernel). Shares are of all of them. Functions below
    `LEAST_SHARE` are left out.
    """
    whole = sum(one.nr_bytes for of_kind in samples.values() for one in of_kind)
    squares = sum(one.squares for of_kind in samples.values() for one in of_kind)
    found = [
        one
        for kind, of_kind in samples.items()
        for group in _groups(of_kind)
        for one in _of_one_code(kind, group, whole, whole**2 / squares)
    ]
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.process.comm or "", str(one.frames))))


def share_error(share: float, count: float) -> float:
    """Return the distance from `share`, of so many samples, within which the true share lies in 95 of 100
    cases. It reaches the farther end of the interval of Agresti and Coull, "Approximate is better than
    'exact'", 1998.

    Samples of several weights tell as much as fewer ones of equal weight: the square of the sum of their
    weights, by the sum of their squares (Kish, "Survey Sampling", 1965).
    """
    near = (share * count + 2) / (count + 4)
    return abs(near - share) + 2 * math.sqrt(near * (1 - near) / (count + 4))


def _groups(samples: Sequence[StackGrowth]) -> list[list[StackGrowth]]:
    """Return the samples of processes of one name and one function of the program together. Names may differ
    by a trailing number."""
    groups: dict[tuple[str | None, tuple[str, str | None]], list[StackGrowth]] = {}
    for sample in samples:
        name = next(iter(_code_of(sample)), "")
        comm = None if sample.comm is None else name_without_number(sample.comm)
        groups.setdefault((comm, frame_of(name).identity), []).append(sample)
    return [*groups.values()]


def _code_of(sample: StackGrowth) -> tuple[str, ...]:
    """Return the frames by which growth is told. Addresses in a row are one frame."""
    frames: list[str] = []
    for name in _told(sample.user) or of_program(sample.kernel):
        shown = NAMELESS_CODE if _is_address(name) else name
        if shown != NAMELESS_CODE or frames[-1:] != [shown]:
            frames.append(shown)
    return tuple(frames)


def _is_address(name: str) -> bool:
    return name.startswith("0x")


def _of_one_code(kind: str, samples: Sequence[StackGrowth], whole: int, count: float) -> list[GrownCode]:
    """Return what grew by one function of a program; nothing if it has too small a share."""
    nr_bytes = sum(sample.nr_bytes for sample in samples)
    if nr_bytes < LEAST_SHARE * whole:
        return []
    tgids = {sample.tgid for sample in samples}
    comms = [sample.comm for sample in samples if sample.comm is not None]
    stacks: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        stacks[_code_of(sample)] += sample.nr_bytes
    frames = _in_common(stacks, nr_bytes)
    is_slab = any(_SLAB.match(name) for sample in samples for name in sample.kernel)
    return [
        GrownCode(
            share=nr_bytes / whole,
            share_error=share_error(nr_bytes / whole, count),
            bytes=nr_bytes,
            of="slab" if kind == "kernel" and is_slab else kind,
            process=GrownProcess(
                next(iter(tgids)) if len(tgids) == 1 else None,
                shared_name(comms) if comms else None,
                len(tgids),
            ),
            language=_language(samples),
            mapping=None,
            frames=frames,
            callers=() if frames[1:] else _callers(stacks, whole),
        )
    ]


def _callers(stacks: Mapping[tuple[str, ...], int], whole: int) -> tuple[Caller, ...]:
    """Return the callers of the innermost function; each with its heaviest line."""
    lines: dict[tuple[str, str | None], Counter[CodeFrame]] = {}
    for names, weight in stacks.items():
        if len(names) > 1:
            frame = frame_of(names[1])
            lines.setdefault(frame.identity, Counter())[frame] += weight
    found = [Caller(of_one.total() / whole, heaviest(of_one)) for of_one in lines.values()]
    large = [one for one in found if one.share >= LEAST_SHARE]
    return tuple(sorted(large, key=lambda one: (-one.share, str(one.frame))))


def _in_common(stacks: Counter[tuple[str, ...]], nr_bytes: int) -> tuple[CodeFrame, ...]:
    """Return the frames that nearly all of the bytes share, innermost first; each with its heaviest line."""
    frames: list[CodeFrame] = []
    for depth in range(MOST_FRAMES):
        weights: Counter[CodeFrame] = Counter()
        for names, weight in stacks.items():
            if depth < len(names):
                weights[frame_of(names[depth])] += weight
        if not weights:
            break
        functions: Counter[tuple[str, str | None]] = Counter()
        for frame, weight in weights.items():
            functions[frame.identity] += weight
        most, weight = functions.most_common(1)[0]
        if frames and weight < _NEARLY_ALL * nr_bytes:
            break
        lines = {frame: w for frame, w in weights.items() if frame.identity == most}
        frames.append(heaviest(lines))
        stacks = Counter({n: w for n, w in stacks.items() if depth < len(n) and frame_of(n[depth]) in lines})
    return tuple(frames)


def heaviest(lines: Mapping[CodeFrame, int]) -> CodeFrame:
    """Return the frame of a function with the most bytes, of those that have a line if there are any: some
    instructions are the compiler's own."""
    return max(lines, key=lambda frame: (frame.line is not None, lines[frame], frame.line or 0))


_SIGNS: Final[Mapping[str, Callable[[str], object]]] = {
    "node": SCRIPT_OF_NODE.match,
    "python": _is_scripted,
    "go": lambda name: name.startswith("runtime.goexit"),
    "dotnet": lambda name: name.endswith("[libcoreclr.so]"),
    "java": lambda name: name.endswith("[libjvm.so]"),
}
"""Language -> whether a frame shows it; the first one counts."""
_LANGUAGES: Final = {NAMELESS_PYTHON: "python"} | {
    name: runs.partition(".")[0].lower() for name, runs in NAMELESS_SCRIPTS.items()
}
"""The first frame of code -> its language."""


def _language(samples: Sequence[StackGrowth]) -> str:
    names = [name for sample in samples for name in sample.user]
    if not names:
        return "kernel"
    for language, is_of_it in _SIGNS.items():
        if any(map(is_of_it, names)):
            return language
    first = next((first for sample in samples for first in _code_of(sample)[:1]), "")
    return _LANGUAGES.get(first, "native")
