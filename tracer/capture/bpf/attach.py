"""BPF programs in the kernel: loaded, attached to hooks, detached; their maps, created; and the types of
subprograms, for which the verifier asks.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import Final

from tracer.capture.bpf.compiled.object_file import ObjectFile, Subprogram
from tracer.capture.bpf.maps import Map
from tracer.capture.bpf.perf_event import attach_kprobe
from tracer.capture.bpf.syscall import (
    AttachType,
    ProgramType,
    Runs,
    attach_program,
    load_program,
    load_types,
    program_runs,
)
from tracer.errors import TracerError
from tracer.kernel.btf import FUNC, FUNC_PROTO, INT, KnownTypes, packed
from tracer.kernel.probes import Hook, Kind

_TYPE: Final = struct.Struct("<III")  # struct btf_type
_STATIC: Final = 0
_GLOBAL: Final = 1
_NUMBER: Final = 1  # the type ids, in the order of `function_types`
_NO_ARGUMENTS: Final = 2
_TWO_NUMBERS: Final = 3


class FunctionType(IntEnum):
    """The type ids of the kinds of functions."""

    PROGRAM = 4
    CALLBACK = 5
    SUBPROGRAM = 6


def function_types() -> bytes:
    """Return the types of all kinds of functions in the format of BTF."""
    names = ["number", "first", "second", *(one.name.lower() for one in FunctionType)]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    at = {name: strings.index(b"\0" + name.encode() + b"\0") + 1 for name in names}
    types = _TYPE.pack(at["number"], INT << 24, 8) + struct.pack("<I", 64)
    types += _TYPE.pack(0, FUNC_PROTO << 24, _NUMBER)
    types += _TYPE.pack(0, FUNC_PROTO << 24 | 2, _NUMBER)
    types += struct.pack("<IIII", at["first"], _NUMBER, at["second"], _NUMBER)
    types += _TYPE.pack(at["program"], FUNC << 24 | _GLOBAL, _NO_ARGUMENTS)
    types += _TYPE.pack(at["callback"], FUNC << 24 | _STATIC, _TWO_NUMBERS)
    types += _TYPE.pack(at["subprogram"], FUNC << 24 | _GLOBAL, _TWO_NUMBERS)
    return packed(types, strings)


def function_infos(subprograms: Sequence[Subprogram]) -> list[tuple[int, int]]:
    """Return the first instruction and the type id of a program and its subprograms."""
    kinds = {False: FunctionType.SUBPROGRAM, True: FunctionType.CALLBACK}
    return [(0, FunctionType.PROGRAM), *((one.first, kinds[one.is_callback]) for one in subprograms)]


_LOG_BYTES: Final = 1 << 20

_LOADED_AS: Final = {
    Kind.TYPED_TRACEPOINT: (ProgramType.TRACING, AttachType.TRACE_RAW_TP),
    Kind.KPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.KRETPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.FENTRY: (ProgramType.TRACING, AttachType.TRACE_FENTRY),
    Kind.FEXIT: (ProgramType.TRACING, AttachType.TRACE_FEXIT),
}


class Attacher:
    """Loads the programs of one object file, creates their maps, and attaches programs.

    `cpus` is the number of possible CPUs. `entries`: name of a map -> its number of elements, of a ring its
    bytes, if it is not the one in the object file. `settings`: name -> the number that programs get
    (bpf/shared/settings.h). Threads may load different programs at the same time.
    """

    def __init__(
        self,
        object_file: ObjectFile,
        types: KnownTypes,
        cpus: int,
        entries: Mapping[str, int],
        settings: Mapping[str, int],
    ) -> None:
        self._object = object_file
        self._types = types
        self._cpus = cpus
        self._entries = entries
        self._settings = settings
        self._programs: dict[tuple[str, str | None], int] = {}  # (program, place if it is for one) -> fd
        self._detachers: dict[Hook, Callable[[], None]] = {}
        self._maps: dict[str, Map] = {}
        self._function_types: int | None = None
        self._lock = threading.Lock()

    def map(self, name: str) -> Map:
        """Return a map. Raises TracerError if the kernel refuses to create it."""
        with self._lock:
            if name not in self._maps:
                try:
                    definition = next(one for one in self._object.maps if one.name == name)
                    entries = self._entries.get(name, definition.max_entries)
                    definition = definition._replace(max_entries=entries)
                    self._maps[name] = Map(definition, self._cpus)
                except OSError as error:
                    raise TracerError(f"the kernel refuses the BPF map {name}: {_refused(error)}") from error
            return self._maps[name]

    def load(self, hook: Hook) -> int:
        """Load a hook's program, and return its descriptor. Raises TracerError if the kernel refuses."""
        kind, attach_type = _LOADED_AS[hook.kind]
        if kind is not ProgramType.TRACING:
            return self._load(hook.program, kind)
        if hook.kind is Kind.TYPED_TRACEPOINT:
            what, target = "tracepoint", self._types.tracepoint(hook.target)
        else:
            what, target = "function", self._types.function(hook.target)
        if target is None:
            raise TracerError(f"this kernel has no {what} {hook.target}")
        return self._load(hook.program, kind, attach_type, hook.target, target)

    def load_runnable(self, name: str) -> int:
        """Load a program that user space can run, and return its descriptor. Raises TracerError."""
        return self._load(name, ProgramType.RAW_TRACEPOINT)

    def runs(self, hook: Hook) -> Runs:
        """Return the run count and run time of a hook's program, for all of its hooks. Raises OSError."""
        return program_runs(self.load(hook))

    def run_ns(self) -> int:
        """Return the run time of all programs while statistics were enabled. Raises OSError."""
        return sum(program_runs(fd).total_ns for fd in self._programs.values())

    def attach(self, hook: Hook) -> None:
        """Load and attach a hook's program. Raises TracerError if the kernel refuses."""
        program = self.load(hook)
        detach: Callable[[], None]
        try:
            match hook.kind:
                case Kind.TYPED_TRACEPOINT | Kind.FENTRY | Kind.FEXIT:
                    detach = partial(os.close, attach_program(program))
                case Kind.KPROBE | Kind.KRETPROBE:
                    is_return = hook.kind is Kind.KRETPROBE
                    detach = partial(os.close, attach_kprobe(program, hook.target, is_return=is_return))
        except OSError as error:
            raise TracerError(f"cannot attach to {hook.target} by {hook.kind}: {_refused(error)}") from error
        self._detachers[hook] = detach

    def detach(self, hook: Hook) -> None:
        """Detach the program of a hook."""
        self._detachers.pop(hook)()

    def detach_all(self) -> None:
        """Detach all programs that are attached."""
        for hook in list(self._detachers):
            self.detach(hook)

    def close(self) -> None:
        """Detach all programs, and close programs and maps."""
        with suppress(OSError):
            self.detach_all()
        types = [] if self._function_types is None else [self._function_types]
        for fd in (*self._programs.values(), *(one.fd for one in self._maps.values()), *types):
            os.close(fd)
        self._function_types = None
        self._programs.clear()
        self._maps.clear()

    def _types_of_functions(self) -> int:
        with self._lock:
            if self._function_types is None:
                self._function_types = load_types(function_types())
            return self._function_types

    def _load(
        self,
        name: str,
        kind: ProgramType,
        attach_type: AttachType = AttachType.NONE,
        place: str | None = None,
        target: int = 0,
    ) -> int:
        if (name, place) in self._programs:
            return self._programs[name, place]
        code, subprograms = self._object.linked(name)
        instructions = code.bound(lambda number: self.map(self._object.maps[number].name).fd, self._settings)
        load = partial(
            load_program, instructions, kind, place or name, attach_type=attach_type, target=target
        )
        try:
            if subprograms:
                functions = function_infos(subprograms)
                load = partial(load, types=self._types_of_functions(), functions=functions)
            fd = load()
        except OSError as error:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            with suppress(OSError):  # load again for the verifier's log
                os.close(load(log=log))
            error.add_note(log.value.decode(errors="replace"))
            raise TracerError(f"the kernel refuses the BPF program {name}: {_refused(error)}") from error
        self._programs[name, place] = fd
        return fd


def _refused(error: OSError) -> str:
    if os.geteuid() != 0:
        return "tracing needs root (run it with sudo)"
    return f"{error.strerror}; see memcg-tracer doctor"
