"""BPF programs in the kernel: loaded, attached to hooks, detached; and their maps, created."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tracer.capture.bpf.bcc_module import output_to
from tracer.capture.bpf.maps import Map
from tracer.capture.bpf.object_file import ObjectFile
from tracer.capture.bpf.syscall import (
    AttachType,
    ProgramType,
    Runs,
    attach_program,
    load_program,
    program_runs,
)
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.probes import Hook, Kind

_LOG_BYTES: Final = 1 << 20

_LOADED_AS: Final = {
    Kind.RAW_TRACEPOINT: (ProgramType.RAW_TRACEPOINT, AttachType.NONE),
    Kind.KPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.KRETPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.FENTRY: (ProgramType.TRACING, AttachType.TRACE_FENTRY),
    Kind.FEXIT: (ProgramType.TRACING, AttachType.TRACE_FEXIT),
}


class Attacher:
    """Creates the maps of one object file, loads its programs, and attaches them.

    `bcc` is BCC's C library, for kprobes. `cpus` is the number of possible CPUs.
    """

    def __init__(self, object_file: ObjectFile, btf: Btf, bcc: Any, cpus: int) -> None:
        """Create the maps. Raises TracerError if the kernel refuses one."""
        self._object = object_file
        self._btf = btf
        self._bcc = bcc
        self._programs: dict[tuple[str, str | None], int] = {}  # (program, function if it is for one) -> fd
        self._detachers: dict[Hook, Callable[[], None]] = {}
        self.maps: dict[str, Map] = {}
        for definition in object_file.maps:
            try:
                self.maps[definition.name] = Map(definition, cpus)
            except OSError as error:
                self.close()
                raise TracerError(
                    f"the kernel refuses the BPF map {definition.name}: {_refused(error)}"
                ) from error

    def load(self, hook: Hook) -> int:
        """Have the kernel verify a hook's program, and return its descriptor. Raises TracerError."""
        kind, attach_type = _LOADED_AS[hook.kind]
        if kind is not ProgramType.TRACING:
            return self._load(hook.program, kind)
        function = self._btf.function(hook.target)
        if function is None:
            raise TracerError(f"this kernel has no function {hook.target}")
        return self._load(hook.program, kind, attach_type, hook.target, function)

    def load_runnable(self, name: str) -> int:
        """Load a program that `run_program` can run, and return its descriptor. Raises TracerError."""
        return self._load(name, ProgramType.RAW_TRACEPOINT)

    def runs(self, hook: Hook) -> Runs:
        """Return the run count and run time of a hook's program, at all of its hooks. Raises OSError."""
        return program_runs(self.load(hook))

    def attach(self, hook: Hook) -> None:
        """Load and attach a hook's program. Raises TracerError if the kernel refuses."""
        program = self.load(hook)
        detach: Callable[[], None]
        try:
            match hook.kind:
                case Kind.RAW_TRACEPOINT:
                    detach = partial(os.close, attach_program(program, hook.target))
                case Kind.FENTRY | Kind.FEXIT:
                    detach = partial(os.close, attach_program(program))
                case Kind.KPROBE | Kind.KRETPROBE:
                    detach = self._attach_kprobe(program, hook)
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
        for fd in (*self._programs.values(), *(one.fd for one in self.maps.values())):
            os.close(fd)
        self._programs.clear()
        self.maps.clear()

    def _load(
        self,
        name: str,
        kind: ProgramType,
        attach_type: AttachType = AttachType.NONE,
        target: str | None = None,
        function: int = 0,
    ) -> int:
        if (name, target) in self._programs:
            return self._programs[name, target]
        fds = [self.maps[definition.name].fd for definition in self._object.maps]
        instructions = self._object.programs[name].with_maps(fds)
        load = partial(
            load_program, instructions, kind, target or name, attach_type=attach_type, function=function
        )
        try:
            fd = load()
        except OSError as error:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            with suppress(OSError):  # load again for the verifier's log
                os.close(load(log=log))
            error.add_note(log.value.decode(errors="replace"))
            raise TracerError(f"the kernel refuses the BPF program {name}: {_refused(error)}") from error
        self._programs[name, target] = fd
        return fd

    def _attach_kprobe(self, program: int, hook: Hook) -> Callable[[], None]:
        """Attach a kprobe by BCC; its output goes into a note of the error. Return a function to detach."""
        is_return = hook.kind is Kind.KRETPROBE
        event = f"{'r' if is_return else 'p'}_{hook.target}".encode()
        with tempfile.TemporaryFile() as log:
            with output_to(log):
                fd = self._bcc.bpf_attach_kprobe(program, int(is_return), event, hook.target.encode(), 0, 0)
            if fd < 0:
                error = OSError(ctypes.get_errno(), "it may be inlined, or not be for probes")
                log.seek(0)
                error.add_note(log.read().decode(errors="replace"))
                raise error

        def detach() -> None:
            self._bcc.bpf_close_perf_event_fd(fd)
            self._bcc.bpf_detach_kprobe(event)

        return detach


def _refused(error: OSError) -> str:
    if os.geteuid() != 0:
        return "tracing needs root (run it with sudo)"
    return f"{error.strerror}; see memcg-tracer doctor"
