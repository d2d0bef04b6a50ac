"""The BPF programs of one recording: compiled for this kernel and the chosen hooks, loaded and attached."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.bpf.attach import Attacher
from tracer.capture.bpf.bcc_module import BccSymbols, find_bcc
from tracer.capture.bpf.compiler import Compilation
from tracer.capture.bpf.hooks import Choice, Offer, choose
from tracer.capture.bpf.maps import Map
from tracer.capture.bpf.object_cache import ObjectCache, cache_folder
from tracer.capture.bpf.sources import bpf_folder, source_text
from tracer.capture.bpf.syscall import Runs, machine, run_program
from tracer.errors import TracerError
from tracer.kernel import struct_header
from tracer.kernel.btf import Btf
from tracer.kernel.probes import Hook, Kind, Way
from tracer.wire.streams import RING_BYTES, STREAMS

WANTED_PATHS: Final = 2048
"""The number of paths that the BPF program can watch for new cgroups."""

_ROOTS: Final = 16384
_COMBINE_NS: Final = 10_000_000  # how long a BPF program may hold a sum of charges back
_CLOCK_MONOTONIC_COARSE: Final = 6  # include/uapi/linux/time.h; Python has no name for it

_RUN_BY_US: Final = (
    "drain",
    "find_cpu_offset",
    "find_map",
    "find_registers",
    "find_memcg",
    "look_again",
    "read_memcg",
    "settle",
)


def watching(hook: Hook) -> Hook:
    """Return the hook at the same place that snapshots counters for calibration (probe.bpf.c)."""
    return Hook(hook.kind, hook.target, f"watch_{hook.function}", hook.argument)


class Programs:
    """The BPF programs of a recording and their maps.

    Compiling takes most of a recorder's start. It runs in a child from here on: call `wait` before any other
    method.

    `version` is that of the cgroup hierarchy with the memory controller. `trace_all`: trace every cgroup, not
    only the selected ones (capture/bpf/roots.py). `ring_pages`: name -> pages of rings that differ from
    `RING_BYTES`. `forced`: the family of hooks to prefer (`Kind.family`). `stacks_bytes`: the bytes that a
    process charges for each sample of its stack; None: no samples. Raises TracerError if BCC is not
    installed, or if the kernel lacks a structure that all programs read.
    """

    def __init__(
        self,
        btf: Btf,
        *,
        version: int,
        trace_all: bool = False,
        ring_pages: Mapping[str, int] | None = None,
        forced: str | None = None,
        stacks_bytes: int | None = None,
    ) -> None:
        if (unfit := struct_header.why_unfit(btf)) is not None:
            raise TracerError(f"{unfit}; see memcg-tracer doctor")
        self.cpus = _possible_cpus()
        self._version = version
        self._ring_pages = {name: size // mmap.PAGESIZE for name, size in RING_BYTES.items()}
        self._ring_pages |= ring_pages or {}
        self._btf = btf
        self._trace_all = trace_all
        self._forced = forced
        self._stacks_bytes = stacks_bytes
        self._refused: dict[Way, str] = {}
        self._offer = Offer.look(btf)
        self._bcc = find_bcc()
        self._begin_compiling()

    def _begin_compiling(self) -> None:
        """Begin to compile for the first way of each signal that the kernel has not refused."""
        self.choices = choose(self._offer, self._version, forced=self._forced, refused=self._refused)
        hooks = [hook for choice in self.choices for hook in _hooks(choice)]
        hooks += [watching(hook) for hook in self.ledger_hooks]
        self._attacher: Attacher | None = None
        self._compilation = Compilation(
            self._bcc,
            source_text(self._btf, hooks),
            self._flags(),
            include=bpf_folder() / "include",
            cache=ObjectCache(cache_folder()),
        )

    def wait(self, warn: Callable[[str], None]) -> None:
        """Wait until the programs are compiled and loaded.

        If the kernel refuses the program of a way, `warn` gets a line and the next way is tried. Raises
        TracerError if a required signal has no way left.
        """
        try:
            while (refusal := self._load_all()) is not None:
                way, why = refusal
                self._refused[way] = why
                warn(f"{why}: going on without {way}")
                self._loaded.close()
                self._begin_compiling()
        except BaseException:
            self.close()
            raise

    def _load_all(self) -> tuple[Way, str] | None:
        """Load the chosen programs. Return the first way that the kernel refuses, and why."""
        for choice in self.choices:
            if choice.way is None and choice.signal.required:
                raise TracerError(
                    f"{choice.signal.name} is not available: {choice.why_not} ({choice.signal.without}); "
                    "see memcg-tracer doctor"
                )
        self._attacher = Attacher(self._compilation.result(), self._btf, self._bcc.lib, self.cpus)
        for name in _RUN_BY_US:
            self._attacher.load_runnable(name)
        for choice in self.choices:
            for hook in _hooks(choice):
                try:
                    self._attacher.load(hook)
                except TracerError as error:
                    assert choice.way is not None
                    return choice.way, str(error).removesuffix("; see memcg-tracer doctor")
        return None

    @property
    def ledger_hooks(self) -> list[Hook]:
        """Return the hooks that report changes of the ledger's counters."""
        return [hook for c in self.choices if c.signal.stream == "charge" for hook in _hooks(c)]

    @property
    def _loaded(self) -> Attacher:
        assert self._attacher is not None, "`wait` comes first"
        return self._attacher

    def _flags(self) -> list[str]:
        flags = [f"-D{machine().macro}", f"-DPAGE_SIZE={mmap.PAGESIZE}UL", f"-DTRACER_CPUS={self.cpus}"]
        flags += [f"-DTRACER_COMBINE_TICKS={max(_COMBINE_NS // _tick_ns(), 1)}"]
        flags += [f"-DTRACER_TICK_NS={_tick_ns()}"]
        flags += [f"-DTRACER_ROOTS={_ROOTS}", f"-DTRACER_WANTED_PATHS={WANTED_PATHS}"]
        flags += [f"-D{name.upper()}_RING_PAGES={pages}" for name, pages in self._ring_pages.items()]
        if any(hook.kind is not Kind.RAW_TRACEPOINT for hook in self.ledger_hooks):
            flags += ["-DLEDGER_BY_FUNCTION"]
        flags += ["-DTRACE_ALL"] if self._trace_all else []
        flags += ["-DCGROUP_V1"] if self._version == 1 else []
        flags += [f"-DSTACKS_BYTES={self._stacks_bytes}ULL"] if self._stacks_bytes else []
        return [*flags, "-Wno-unused-function"]

    def run(self, name: str, args: Sequence[int] = (), cpu: int | None = None) -> int:
        """Run a program once, on `cpu` or on any CPU, and return its result. Raises OSError."""
        return run_program(self._loaded.load_runnable(name), args, cpu)

    def map(self, name: str) -> Map:
        """Return a map by its name in the sources."""
        return self._loaded.maps[name]

    @property
    def streams(self) -> list[str]:
        """Return the names of the streams that have a ring."""
        return [stream.name for stream in STREAMS if self._stacks_bytes or not stream.needs_stacks]

    def ring_fd(self, name: str) -> int:
        """Return the file descriptor of a ring."""
        return self.map(f"{name}_ring").fd

    def ring_bytes(self, name: str) -> int:
        """Return the size of a ring in bytes."""
        return self._ring_pages[name] * mmap.PAGESIZE

    def attach(self, warn: Callable[[str], None]) -> None:
        """Attach the chosen programs, first those that record OOM decisions: a ledger without them explains
        nothing.

        A signal that the kernel refuses to attach loses its way in `choices`, and `warn` gets a line. Raises
        TracerError if the signal is required.
        """
        self.choices = [self._attach(choice, warn) for choice in reversed(self.choices)][::-1]

    def _attach(self, choice: Choice, warn: Callable[[str], None]) -> Choice:
        attached = []
        try:
            for hook in _hooks(choice):
                self.attach_hook(hook)
                attached.append(hook)
        except TracerError as error:
            if choice.signal.required:
                raise
            for hook in attached:
                self.detach_hook(hook)
            warn(f"{error} ({choice.signal.without})")
            return Choice(choice.signal, None, str(error))
        return choice

    def attach_hook(self, hook: Hook) -> None:
        """Attach one program."""
        self._loaded.attach(hook)

    def detach_hook(self, hook: Hook) -> None:
        """Detach one program."""
        self._loaded.detach(hook)

    def runs(self, hook: Hook) -> Runs:
        """Return how often a hook's program ran, and how long, with statistics enabled. Raises OSError."""
        return self._loaded.runs(hook)

    def detach_all(self) -> None:
        """Detach all programs. Maps and rings stay readable."""
        self._loaded.detach_all()

    def drain(self) -> bool:
        """Send the sums that wait, on the CPUs that have any. Return whether all were sent."""
        states = self.map("combine_state")
        for cpu, state in enumerate(states[0]):
            if state.waiting:
                with suppress(OSError):  # the CPU is offline: nothing of ours runs there
                    self.run("drain", cpu=cpu)
        return not any(state.waiting for state in states[0])

    @property
    def counts_reclaim(self) -> bool:
        """Return whether the kernel's scans and steals are counted (bpf/shared/reclaim_counts.h)."""
        counting = any(choice.signal.name == "reclaim counts" and choice.way for choice in self.choices)
        return counting or struct_header.reclaim_counts_are_node_stats(self._btf)

    def kernel_symbol_at(self, address: int) -> str | None:
        """Return the kernel's symbol+offset at an address, from a table that BCC reads at the first call."""
        name: bytes = self._bcc.BPF.ksym(address, show_offset=True)
        return None if name.startswith(b"[unknown]") else name.decode(errors="backslashreplace")

    def bcc_symbols(self, tgid: int) -> BccSymbols:
        """Return BCC's symbol table of a process, as of now."""
        return BccSymbols(self._bcc, tgid)

    def close(self) -> None:
        """Detach everything and free the maps."""
        self._compilation.stop()
        if self._attacher is not None:
            self._attacher.close()


def _hooks(choice: Choice) -> tuple[Hook, ...]:
    return choice.way.hooks if choice.way else ()


def _tick_ns() -> int:
    """Return the length of a timer tick: coarse clocks advance by it (hrtimer_get_res, kernel/time/)."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1
