"""The hooks that the running kernel offers, and the choice of a way for each signal.

The choice uses no version number: a minimal program shows whether the kernel takes programs of a kind; BTF
and the symbol table show whether a tracepoint or function exists.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from tracer.capture.bpf.perf_event import KPROBES
from tracer.capture.bpf.syscall import RETURN_0, AttachType, ProgramType, attach_program, load_program
from tracer.kernel.btf import Btf, KnownTypes
from tracer.kernel.probes import Hook, Kind, Signal, Way, needed

FAMILIES: Final = tuple(dict.fromkeys(kind.family for kind in Kind))

TRIED_ON: Final = "out_of_memory"
"""A function that every kernel has, and that hardly ever runs."""

_SYMBOLS: Final = Path("/proc/kallsyms")


class Offer:
    """The hooks of a kernel. `closed`: family of hooks -> the reason why the kernel refuses all its hooks."""

    def __init__(self, btf: Btf, closed: Mapping[str, str]) -> None:
        self.btf = btf
        self.closed = closed

    @classmethod
    def look(cls, btf: Btf) -> Offer:
        """Return the offer of the running kernel."""
        return cls(btf, closed_families(btf))

    def why_not(self, hook: Hook) -> str | None:
        """Return the reason why a hook is not available; None if no reason is known."""
        if hook.kind.family in self.closed:
            return self.closed[hook.kind.family]
        if hook.kind is Kind.TYPED_TRACEPOINT:
            what, arguments = "tracepoint", self.btf.tracepoint_arguments(hook.target)
        else:
            what, arguments = "function", self.btf.function_arguments(hook.target)
        if arguments is None:
            return f"this kernel has no {what} {hook.target}"
        if hook.argument and hook.argument != (arguments or ("",))[0]:
            return f"the {what} {hook.target} is of another form here"
        if hook.kind.family == Kind.KPROBE and f" {hook.target}\n".encode() not in self._symbols:
            return f"the function {hook.target} is inlined in this kernel"
        return None

    @cached_property
    def _symbols(self) -> bytes:
        return _SYMBOLS.read_bytes()


@dataclass(frozen=True)
class Choice:
    """The way chosen for a signal, or the reason why there is none."""

    signal: Signal
    way: Way | None
    why_not: str = ""

    @property
    def meaning(self) -> str:
        """Return `exact` or `absent`."""
        return "absent" if self.way is None else "exact"

    def document(self) -> dict[str, str | None]:
        """Return the entry for meta.json."""
        if self.way is None:
            return {"hook": None, "meaning": self.meaning, "detail": f"{self.why_not}: {self.signal.without}"}
        return {"hook": str(self.way), "meaning": self.meaning, "detail": ""}


def choose(
    offer: Offer, version: int, *, forced: str | None = None, refused: Mapping[Way, str] | None = None
) -> list[Choice]:
    """Choose for each signal of cgroup `version` the first way that is available and was not `refused`.

    `forced` is a family of hooks that is preferred to all others. `refused`: way -> reason.
    """
    refused = refused or {}
    return [
        _choose(offer, signal, forced, refused)
        for signal in needed(version)
        if not signal.only_with or offer.btf.function_arguments(signal.only_with) is not None
    ]


def _choose(offer: Offer, signal: Signal, forced: str | None, refused: Mapping[Way, str]) -> Choice:
    ways: Collection[Way] = [way for way in signal.ways if way.family == forced] or signal.ways
    reasons = []
    for way in ways:
        why = refused.get(way) or next(filter(None, map(offer.why_not, way.hooks)), None)
        if why is None:
            return Choice(signal, way)
        reasons.append(why)
    return Choice(signal, None, "; ".join(dict.fromkeys(reasons)))


def closed_families(types: Btf | KnownTypes) -> dict[str, str]:
    """Return family -> reason, for the families of hooks that the running kernel closes."""
    reasons = {Kind.FENTRY.value: _why_no_trampolines(types), Kind.KPROBE.value: _why_no_kprobes()}
    return {family: why for family, why in reasons.items() if why is not None}


def _why_no_trampolines(types: Btf | KnownTypes) -> str | None:
    function = types.function(TRIED_ON)
    if function is None:
        return "the kernel's BTF has no functions"
    try:
        program = load_program(
            RETURN_0, ProgramType.TRACING, "trial", attach_type=AttachType.TRACE_FENTRY, target=function
        )
        try:
            os.close(attach_program(program))
        finally:
            os.close(program)
    except OSError as error:
        return f"fentry is closed here ({error.strerror})"
    return None


def _why_no_kprobes() -> str | None:
    if not KPROBES.exists():
        return "this kernel has no kprobes"
    return None
