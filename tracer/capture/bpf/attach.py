"""Programs loaded into the kernel, attached to their hooks and detached again, and their maps."""

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
from tracer.capture.bpf.object_file import Unit
from tracer.capture.bpf.syscall import AttachType, ProgramType, Runs, attach_program, load_program, runs_of
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
    """Makes the maps of one compiled unit, loads its programs, and attaches them. `bcc`: BCC's library of C
    functions, for kprobes; `cpus`: how many are possible.
    """

    def __init__(self, unit: Unit, btf: Btf, bcc: Any, cpus: int) -> None:
        """Raises TracerError where the kernel refuses a map."""
        self._unit = unit
        self._btf = btf
        self._bcc = bcc
        self._programs: dict[tuple[str, str | None], int] = {}  # (program, function if it is for one) -> fd
        self._detachers: dict[Hook, Callable[[], None]] = {}
        self.maps: dict[str, Map] = {}
        for definition in unit.maps:
            try:
                self.maps[definition.name] = Map(definition, cpus)
            except OSError as error:
                self.close()
                raise TracerError(
                    f"the kernel refuses the BPF map {definition.name}: {_refused(error)}"
                ) from error

    def load(self, hook: Hook) -> int:
        """Have the kernel verify a hook's program; its descriptor. TracerError where it refuses."""
        kind, attach_type = _LOADED_AS[hook.kind]
        if kind is not ProgramType.TRACING:
            return self._load(hook.program, kind)
        function = self._btf.function(hook.target)
        if function is None:
            raise TracerError(f"this kernel has no function {hook.target}")
        return self._load(hook.program, kind, attach_type, hook.target, function)

    def load_runnable(self, name: str) -> int:
        """The descriptor of a program with a raw tracepoint's context, which can also be run by hand."""
        return self._load(name, ProgramType.RAW_TRACEPOINT)

    def runs(self, hook: Hook) -> Runs:
        """How often a hook's program ran, also at other hooks, and for how long. Raises OSError."""
        return runs_of(self.load(hook))

    def attach(self, hook: Hook) -> None:
        """Load and attach; TracerError where the kernel refuses."""
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
        """Detach what is attached to a hook."""
        self._detachers.pop(hook)()

    def detach_all(self) -> None:
        """Detach everything that is attached still."""
        for hook in list(self._detachers):
            self.detach(hook)

    def close(self) -> None:
        """Detach everything, and let the programs and the maps go."""
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
        fds = [self.maps[definition.name].fd for definition in self._unit.maps]
        instructions = self._unit.programs[name].with_maps(fds)
        load = partial(
            load_program, instructions, kind, target or name, attach_type=attach_type, function=function
        )
        try:
            fd = load()
        except OSError as error:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            with suppress(OSError):  # again, now for what the verifier says
                os.close(load(log=log))
            error.add_note(log.value.decode(errors="replace"))
            raise TracerError(f"the kernel refuses the BPF program {name}: {_refused(error)}") from error
        self._programs[name, target] = fd
        return fd

    def _attach_kprobe(self, program: int, hook: Hook) -> Callable[[], None]:
        """What BCC itself says of it goes into the error's note."""
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
