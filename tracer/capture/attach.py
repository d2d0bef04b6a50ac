"""Programs loaded into the kernel, attached to their hooks and detached again."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tracer.capture.bcc_module import output_to, refusal
from tracer.capture.bpf_syscall import Runs, attach_tracing, load_tracing, runs_of
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.probes import Hook, Kind

_LOG_BYTES: Final = 1 << 20


class Attacher:
    """Loads the programs of one compiled unit, and attaches them. `bpf` is BCC's object."""

    def __init__(self, bpf: Any, btf: Btf) -> None:
        self.bpf = bpf
        self._btf = btf
        self._tracing: dict[tuple[str, str], int] = {}  # (program, function) -> descriptor
        self._detachers: dict[Hook, Callable[[], None]] = {}

    def load(self, hook: Hook) -> None:
        """Have the kernel verify a hook's program; TracerError where it refuses."""
        match hook.kind:
            case Kind.RAW_TRACEPOINT:
                self.load_runnable(hook.program)
            case Kind.KPROBE | Kind.KRETPROBE:
                self._by_bcc(f"the kernel refuses the BPF program {hook.program}", self._load_kprobe, hook)
            case Kind.FENTRY | Kind.FEXIT:
                self._load_tracing(hook)

    def load_runnable(self, name: str) -> int:
        """The descriptor of a program with a raw tracepoint's context, which can also be run by hand."""
        raw_tracepoint = type(self.bpf).RAW_TRACEPOINT
        load = partial(self.bpf.load_func, name.encode(), raw_tracepoint)
        return int(self._by_bcc(f"the kernel refuses the BPF program {name}", load).fd)

    def runs(self, hook: Hook) -> Runs:
        """How often a loaded hook's program ran, also at other hooks, and for how long. Raises OSError."""
        match hook.kind:
            case Kind.RAW_TRACEPOINT:
                return runs_of(self.load_runnable(hook.program))
            case Kind.KPROBE | Kind.KRETPROBE:
                return runs_of(int(self._load_kprobe(hook).fd))
            case Kind.FENTRY | Kind.FEXIT:
                return runs_of(self._tracing[hook.program, hook.target])

    def attach(self, hook: Hook) -> None:
        """Load and attach; TracerError where the kernel refuses."""
        self.load(hook)
        target, program = hook.target.encode(), hook.program.encode()
        failed = f"cannot attach to {hook.target} by {hook.kind}"
        match hook.kind:
            case Kind.RAW_TRACEPOINT:
                self._by_bcc(failed, self.bpf.attach_raw_tracepoint, target, program)
                detach = partial(self.bpf.detach_raw_tracepoint, target)
            case Kind.KPROBE:
                self._by_bcc(failed, partial(self.bpf.attach_kprobe, event=target, fn_name=program))
                detach = partial(self.bpf.detach_kprobe, event=target, fn_name=program)
            case Kind.KRETPROBE:
                self._by_bcc(failed, partial(self.bpf.attach_kretprobe, event=target, fn_name=program))
                detach = partial(self.bpf.detach_kretprobe, event=target, fn_name=program)
            case Kind.FENTRY | Kind.FEXIT:
                try:
                    link = attach_tracing(self._tracing[hook.program, hook.target])
                except OSError as error:
                    raise TracerError(f"{failed}: {error.strerror}") from error
                detach = partial(os.close, link)
        self._detachers[hook] = detach

    def detach(self, hook: Hook) -> None:
        """Detach what is attached to a hook."""
        self._detachers.pop(hook)()

    def detach_all(self) -> None:
        """Detach everything that is attached still."""
        for hook in list(self._detachers):
            self.detach(hook)

    def close(self) -> None:
        """Detach everything, and let the programs go."""
        with suppress(OSError):
            self.detach_all()
        for fd in self._tracing.values():
            os.close(fd)
        self._tracing.clear()
        self.bpf.cleanup()

    def _load_kprobe(self, hook: Hook) -> Any:
        return self.bpf.load_func(hook.program.encode(), type(self.bpf).KPROBE)

    def _load_tracing(self, hook: Hook) -> None:
        if (hook.program, hook.target) in self._tracing:
            return
        function = self._btf.function(hook.target)
        if function is None:
            raise TracerError(f"this kernel has no function {hook.target}")
        instructions = self.bpf.dump_func(hook.program.encode())
        load = partial(
            load_tracing, instructions, function, at_exit=hook.kind is Kind.FEXIT, name=hook.function
        )
        try:
            fd = load()
        except OSError as error:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            with suppress(OSError):  # again, now for what the verifier says
                os.close(load(log=log))
            error.add_note(log.value.decode(errors="replace"))
            raise TracerError(
                f"the kernel refuses the BPF program {hook.program}: {error.strerror}; "
                "see memcg-tracer doctor"
            ) from error
        self._tracing[hook.program, hook.target] = fd

    def _by_bcc(self, what: str, act: Callable[..., Any], *args: Any) -> Any:
        """Have BCC do it; what it prints goes into the error."""
        with tempfile.TemporaryFile() as log:
            try:
                with output_to(log):
                    return act(*args)
            except (Exception, SystemExit) as error:
                raise TracerError(refusal(what, log, error)) from error
