"""Names of the addresses in kernel stacks, without the frames of the tracer's own programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import dropwhile
from typing import Final

_TRAMPOLINE: Final = "bpf_trampoline_"
_PROBE_FRAMES: Final = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", _TRAMPOLINE)
"""Functions between a hook and its program (kernel/trace/bpf_trace.c, include/trace/bpf_probe.h,
kernel/bpf/trampoline.c)."""


class KernelNames:
    """Names kernel addresses, for any thread.

    `symbol_at` returns symbol+offset of an address, or None; it is called by one thread at a time.
    """

    def __init__(self, symbol_at: Callable[[int], str | None]) -> None:
        self._symbol_at = symbol_at
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the kernel's symbol table now, and not at the first look-up.

        It has the symbols of BPF programs that are attached by now.
        """
        self.frames([0])

    def frames(self, addresses: Sequence[int]) -> list[str]:
        """Return a name for each frame, innermost first, without those of the tracer's own programs."""
        with self._lock:
            names = [self._symbol_at(address) or f"{address:#x}" for address in addresses]
        return without_probes(names)


def without_probes(frames: Sequence[str]) -> list[str]:
    """Return a kernel stack, innermost first, as it would be without hooks.

    A trampoline calls a function whose exit is hooked, and is itself called by the first instruction of that
    function. So the function may appear twice.
    """
    kept: list[str] = []
    is_behind_trampoline = False
    for frame in dropwhile(lambda frame: frame.startswith(_PROBE_FRAMES), frames):
        is_trampoline = frame.startswith(_TRAMPOLINE)
        is_again = is_behind_trampoline and frame.partition("+")[0] == kept[-1].partition("+")[0]
        if not is_trampoline and not is_again:
            kept.append(frame)
        is_behind_trampoline = is_trampoline
    return kept
