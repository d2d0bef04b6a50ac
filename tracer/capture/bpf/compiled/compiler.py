"""Programs for the running kernel: compiled by BCC in a child process, or found in the cache.

The child parses the kernel's BTF, chooses the hooks and runs BCC, in parallel with the rest of a recorder's
start. Its exit frees the memory that this took. Output of BCC and clang goes to a file and not to the user's
terminal. If LLVM meets a fatal error and ends the process, the recorder survives and reports it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import tracer
from tracer.capture.bpf.compiled.bcc_module import find_bcc, installed_bcc
from tracer.capture.bpf.compiled.cache import Cache, cache_key
from tracer.capture.bpf.compiled.object_file import (
    PSEUDO_SETTING,
    SUBPROGRAMS,
    MapDefinition,
    ObjectFile,
    ProgramCode,
)
from tracer.capture.bpf.hooks import TRIED_ON, Choice, closed_families
from tracer.capture.bpf.syscall import machine, map_sizes
from tracer.errors import TracerError
from tracer.kernel import struct_header
from tracer.kernel.btf import VMLINUX, Btf, KnownTypes, read_btf
from tracer.kernel.probes import SIGNALS, Hook, Kind
from tracer.kernel.process.children import end_with_parent
from tracer.kernel.process.priority import prefer_this_thread

_INCLUDE: Final = re.compile(r'^#include "(.+)"$', re.MULTILINE)
_SUBPROGRAM: Final = re.compile(r"^SUBPROGRAM\((\w+)\)$", re.MULTILINE)
_SETTING: Final = re.compile(r"(?<!#define )\bSETTING\((\w+)\)")


def bpf_folder() -> Path:
    """Return the folder of the BPF sources: beside the package in a checkout, inside it when installed."""
    package = Path(tracer.__file__).parent
    return next(p for p in (package / "bpf", package.parent / "bpf") if (p / "events.h").is_file())


def source_text(btf: Btf, hooks: Sequence[Hook], programs: str = "*.bpf.c") -> str:
    """Return the one compilation unit of all programs of a pattern, which share maps.

    The unit has a line for each function that is hooked (bpf/shared/kernel.h).
    """
    sources = ordered_sources(bpf_folder(), programs)
    parts = [f'#line 1 "{name}"\n{text}' for name, text in sources.items()]
    lines = [
        f"{hook.kind.upper()}({hook.function}, {len(btf.function_arguments(hook.target) or ())})"
        for hook in {hook.program: hook for hook in hooks if hook.kind is not Kind.TYPED_TRACEPOINT}.values()
    ]
    text = "\n".join([*parts, '#line 1 "hooks"', *lines, ""])
    return struct_header.header(btf) + numbered_names(text) + text


def numbered_names(text: str) -> str:
    """Return the C definitions by which a text refers to its subprograms and settings
    (bpf/shared/subprograms.h, settings.h).
    """
    names = (
        *enumerate(subprograms(text)),
        *((n, f"SETTING_{name}") for n, name in enumerate(settings(text))),
    )
    numbers = (f"#define NUMBER_OF_{name} {number}" for number, name in names)
    first = (f"#define SUBPROGRAMS {SUBPROGRAMS}", f"#define PSEUDO_SETTING {PSEUDO_SETTING}")
    return "\n".join([*first, *numbers, ""])


def subprograms(text: str) -> list[str]:
    """Return the names of the subprograms that a C text defines (bpf/shared/subprograms.h), by number."""
    return _SUBPROGRAM.findall(text)


def settings(text: str) -> list[str]:
    """Return the names of the settings in a C text (bpf/shared/settings.h), by number."""
    return list(dict.fromkeys(_SETTING.findall(text)))


def ordered_sources(folder: Path, programs: str = "*.bpf.c") -> dict[str, str]:
    """Return name below `folder` -> text of the sources, each after the sources that it includes.

    `programs` is the pattern of the programs; the sources that they include follow from them.

    The lines that include sources are removed: BCC rewrites calls of map methods in the main file only.
    """
    folder = folder.resolve()
    texts: dict[Path, str] = {}
    for program in sorted(folder.glob(programs)):
        _add(program, texts)
    return {str(path.relative_to(folder)): text for path, text in texts.items()}


def _add(path: Path, texts: dict[Path, str]) -> None:
    if path in texts:
        return
    text = path.read_text()
    for name in _INCLUDE.findall(text):
        _add((path.parent / name).resolve(), texts)
    texts[path] = _INCLUDE.sub("", text)


_FORMAT: Final = "5"  # of the cached units: change it with `Unit.encode` and `ObjectFile.encode`
_NO_QUERY: Final = "no member named 'ringbuf_query'"  # BCC before iovisor/bcc pull request 4595
TOO_OLD: Final = "this BCC is too old: 0.26, as in Debian 12, lacks ringbuf_query, and 0.31 has it"
_REFUSED: Final = 2  # exit status of the child: its document is an error for the user
_KEPT_ENUMERATORS: Final = ("NR_", "MEMCG_", "PG", "WORKINGSET_")
"""The prefixes of the names of the kernel's memory counters."""


@dataclass(frozen=True)
class Source:
    """A compilation unit: its C text and the compiler's flags, and the choice of hooks that led to it."""

    text: str
    flags: list[str]
    choices: list[Choice]


@dataclass(frozen=True)
class Unit:
    """The programs for one kernel. `closed`: the families of hooks that were closed when they were chosen.
    `source`: the cache key of the object file, which other units of the same source have as well."""

    object_file: ObjectFile
    choices: list[Choice]
    types: KnownTypes
    closed: Mapping[str, str]
    source: str

    def encode(self) -> bytes:
        """Return a document that `decode` reads: a line, and the object file."""
        choices = [
            (one.signal.name, one.way and one.signal.ways.index(one.way), one.why_not) for one in self.choices
        ]
        head = {
            "choices": choices,
            "enumerators": dict(self.types.enumerators),
            "functions": dict(self.types.functions),
            "tracepoints": dict(self.types.tracepoints),
            "closed": dict(self.closed),
            "source": self.source,
        }
        return json.dumps(head).encode() + b"\n" + self.object_file.encode()

    @classmethod
    def decode(cls, document: bytes) -> Unit:
        """Read a document of `encode`. Raises ValueError, LookupError or TypeError for any other."""
        first, _, rest = document.partition(b"\n")
        head = json.loads(first)
        signals = {one.name: one for one in SIGNALS}
        choices = [
            Choice(signals[name], None if way is None else signals[name].ways[way], why_not)
            for name, way, why_not in head["choices"]
        ]
        types = KnownTypes(head["enumerators"], head["functions"], head["tracepoints"])
        return cls(ObjectFile.decode(rest), choices, types, head["closed"], head["source"])


class Compilation:
    """A compilation that runs, or a unit that was found in `cache`. Any thread may wait for it.

    `compose` returns the source for a kernel's types and closed families of hooks, in the child. `asked` is
    everything else on which its result depends. `btf` is the file with the types. `is_cached`: the unit was
    found. Raises TracerError if the kernel has no BTF, or the machine is not supported.
    """

    def __init__(
        self,
        compose: Callable[[Btf, Mapping[str, str]], Source],
        asked: object,
        cache: Cache,
        btf: Path = VMLINUX,
    ) -> None:
        self._cache = cache
        files = (file.read_bytes() for file in made_from())
        self._key = cache_key(_FORMAT, machine().macro, installed_bcc(), repr(asked), read_btf(btf), *files)
        self._unit = self._kept()
        self.is_cached = self._unit is not None
        self._lock = threading.Lock()
        self._child = 0
        if self._unit is None:
            self._output, self._document = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  until `result`
            self._child = os.fork()
            if self._child == 0:
                _compile(compose, btf, cache, document=self._document, output=self._output)
            self._pidfd = os.pidfd_open(self._child)

    def _kept(self) -> Unit | None:
        """Return the unit in the cache, if the kernel closes the same hooks as when it was made."""
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            head = self._cache.get(self._key) or b""
            object_file = self._cache.get(json.loads(head)["source"]) or b""
            unit = Unit.decode(head + b"\n" + object_file)
            if closed_families(unit.types) == unit.closed:
                return unit
        return None

    def result(self) -> Unit:
        """Wait for the child and return the unit. Raises TracerError if the kernel or BCC is unfit, or the
        source does not compile.
        """
        with self._lock:
            if self._child:
                self._take_unit()
        if self._unit is None:
            raise self._error
        return self._unit

    def _take_unit(self) -> None:
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        os.close(self._pidfd)
        with self._document, self._output:
            for file in (self._document, self._output):
                file.seek(0)
            document = self._document.read()
            if status:
                self._error = self._failure(os.waitstatus_to_exitcode(status), document)
                return
        self._unit = Unit.decode(document)
        head, _, object_file = document.partition(b"\n")
        self._cache.put(self._unit.source, object_file)
        self._cache.put(self._key, head)

    def stop(self) -> None:
        """Kill the compiler if it still runs, and wait for its end."""
        if self._child:
            with suppress(ProcessLookupError):  # it has ended, and `result` runs in another thread
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            with suppress(TracerError):
                self.result()

    def _failure(self, code: int, document: bytes) -> TracerError:
        """Return an error of one line for the user, with the whole output in a note, which --debug shows."""
        if code == _REFUSED:
            return TracerError(document.decode(errors="replace"))
        text = (self._output.read() + document).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        how = f"the compiler was ended by {signal.Signals(-code).name}" if code < 0 else "the compiler failed"
        first = (
            next((line for line in lines if "error:" in line), "")
            or (lines or [f"{how} without a message"])[-1]
        )
        if _NO_QUERY in first:
            first = TOO_OLD
        if os.geteuid() != 0:
            first = "tracing needs root (run it with sudo)"
        error = TracerError(f"BCC cannot compile the BPF programs: {first}; see memcg-tracer doctor")
        error.add_note(text)
        return error


def made_from() -> Iterator[Path]:
    """Yield the files that determine a unit, besides BTF: the C sources, and the modules that choose the
    hooks and write the header (all that this room may import).
    """
    yield from compiled_by()
    for pattern in ("*.py", "wire/*.py", "kernel/*.py", "capture/bpf/*.py"):
        yield from sorted(Path(tracer.__file__).parent.glob(pattern))


def compiled_by() -> Iterator[Path]:
    """Yield the files that determine the object file of a `Source`: what BCC includes, these modules, and the
    one that knows the sizes of maps."""
    yield from (path for path in sorted(bpf_folder().rglob("*")) if path.is_file())
    yield from sorted(Path(__file__).parent.glob("*.py"))
    yield Path(__file__).parents[1] / "syscall.py"


def _source_key(source: Source) -> str:
    files = (file.read_bytes() for file in compiled_by())
    made_of = (os.uname().release, machine().macro, installed_bcc(), repr(source.flags), source.text)
    return cache_key(_FORMAT, "source", *made_of, *files)


def _compile(
    compose: Callable[[Btf, Mapping[str, str]], Source],
    btf: Path,
    cache: Cache,
    *,
    document: Any,
    output: Any,
) -> NoReturn:
    """Compile in the child, write the unit to `document`, and exit."""
    status = 1
    try:
        end_with_parent()
        prefer_this_thread()
        for fd in (1, 2):
            os.dup2(output.fileno(), fd)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, errors="backslashreplace", closefd=False)
        types = Btf.load(btf)
        closed = closed_families(types)
        source = compose(types, closed)
        key = _source_key(source)
        object_file = _kept_object(cache, key) or compiled(source.text, source.flags)
        unit = Unit(object_file, source.choices, _known(types, source.choices), closed, key)
        document.write(unit.encode())
        status = 0
    except SystemExit:  # BCC has printed the reason
        pass
    except TracerError as error:
        document.write(str(error).encode(errors="backslashreplace"))
        status = _REFUSED
    except Exception as error:
        document.write(str(error).encode(errors="backslashreplace"))
    finally:
        document.flush()
        os._exit(status)


def _kept_object(cache: Cache, key: str) -> ObjectFile | None:
    with suppress(ValueError, LookupError, TypeError):
        return ObjectFile.decode(cache.get(key) or b"")
    return None


def _known(types: Btf, choices: list[Choice]) -> KnownTypes:
    targets = sorted({hook.target for one in choices for way in one.signal.ways for hook in way.hooks})

    def ids(find: Callable[[str], int | None]) -> dict[str, int]:
        return {name: found for name in (*targets, TRIED_ON) if (found := find(name)) is not None}

    counters = {name: n for name, n in types.enumerators.items() if name.startswith(_KEPT_ENUMERATORS)}
    return KnownTypes(counters, ids(types.function), ids(types.tracepoint))


def compiled(text: str, flags: list[str]) -> ObjectFile:
    """Compile a C text with BCC. Raises the exceptions of BCC, which prints the reason.

    MEMCG_TRACER_COMPILER is a program that compiles instead, for another machine: it gets the text and the
    flags on its standard input, and its output is the object file.
    """
    if elsewhere := os.environ.get("MEMCG_TRACER_COMPILER"):
        request = json.dumps({"text": text, "flags": flags, "arch": os.environ.get("ARCH")}).encode()
        return ObjectFile.decode(
            subprocess.run([elsewhere], input=request, stdout=subprocess.PIPE, check=True).stdout
        )
    bcc = find_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "include")
    once = ["-Xclang", "-disable-llvm-passes"]  # BCC optimizes what clang gives it, so clang need not
    found = bcc.BPF(text=text.encode(), cflags=[*flags, *once])
    return read_object(bcc, found, subprograms(text), settings(text))


def read_object(
    bcc: ModuleType, compiled: Any, names_of_subprograms: Sequence[str], names_of_settings: Sequence[str]
) -> ObjectFile:
    """Return the maps and programs of a compiled `bcc.BPF` object."""
    library, module = bcc.lib, compiled.module
    library.bpf_num_tables.argtypes, library.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_ulonglong
    library.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    library.bpf_table_name.restype = ctypes.c_char_p
    names = [library.bpf_table_name(module, number) for number in range(library.bpf_num_tables(module))]
    fds = [library.bpf_table_fd(module, name) for name in names]
    maps = tuple(
        MapDefinition(
            name.decode(),
            *map_sizes(fd),
            library.bpf_table_key_desc(module, name).decode(),
            library.bpf_table_leaf_desc(module, name).decode(),
        )
        for name, fd in zip(names, fds, strict=True)
    )
    numbers = {fd: number for number, fd in enumerate(fds)}
    functions = [library.bpf_function_name(module, n) for n in range(library.bpf_num_functions(module))]
    return ObjectFile(
        maps,
        {
            name.decode(): ProgramCode.from_instructions(
                compiled.dump_func(name), numbers, names_of_subprograms, names_of_settings
            )
            for name in functions
        },
    )
