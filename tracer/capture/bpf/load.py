"""The BPF programs of one recording: compiled for this kernel and the chosen hooks, loaded and attached."""

from __future__ import annotations

import mmap
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from tracer.capture.bpf.attach import Attacher
from tracer.capture.bpf.compiled.cache import Cache, cache_folder
from tracer.capture.bpf.compiled.compiler import Compilation, Source, source_text
from tracer.capture.bpf.hooks import Choice, Offer, choose
from tracer.capture.bpf.maps import Element, Map
from tracer.capture.bpf.syscall import TEST_RUN_ARGS, Runnable, Runs, machine
from tracer.categories import CATEGORIES
from tracer.errors import TracerError
from tracer.kernel import struct_header
from tracer.kernel.btf import VMLINUX, Btf
from tracer.kernel.probes import Hook, Kind, Way
from tracer.kernel.process.priority import Urgency
from tracer.wire.streams import CODE_SAMPLE, RING_BYTES, STACK_COPY, STREAMS

WANTED_PATHS: Final = 2048
"""The number of paths that the BPF program can watch for new cgroups."""

ACCOUNTS: Final = 4096
"""The number of accounts of the ledger (bpf/shared/accounts.h) on a machine with few cgroups. It is one more
than the number of memcgs that can have an account at the same time."""

_ACCOUNTS_STEP: Final = 1024
_ACCOUNTS_MEMORY_DIVISOR: Final = 256  # beyond `ACCOUNTS`, they take at most 1/256 of the memory
_BY_ACCOUNT: Final = (
    "accounts",
    "free_slots",
    "ended_slots",
    "offline_slots",
    "primed",
    "slot_of",
    "residue",
)
_BY_ACCOUNT_AND_CPU: Final = ("seen", "task_times")

_ROOTS: Final = 16384
SAMPLED: Final = 16384
"""The number of memcgs that can be sampled (bpf/samples.bpf.c)."""

SAMPLES_A_RUN: Final = 32
_KNOWN_LEVELS: Final = {"anon": "rss_pages"}
"""Kind of memory that is sampled -> the map with the level from which its growth is counted. An event of
another kind has the growth itself."""

_VERIFIERS: Final = 2
_COMBINE_NS: Final = 10_000_000  # how long a BPF program may hold a sum of charges back
_CLOCK_MONOTONIC_COARSE: Final = 6  # include/uapi/linux/time.h; Python has no name for it

_RUN_BY_US: Final = (
    "close_account",
    "find_cpu_offsets",
    "find_map",
    "find_memcg",
    "find_stalled",
    "find_unflushed",
    "free_all_slots",
    "look",
    "look_again",
    "prime",
    "sample_memcgs",
    "take_offline",
    "tick",
)


def accounts_for(cgroups: int) -> int:
    """Return the number of accounts for a machine that has so many cgroups at the start: twice as many."""
    account_bytes = 8 * (len(CATEGORIES) + 1) * _possible_cpus()  # `seen` and `task_times`
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    most = memory_bytes // _ACCOUNTS_MEMORY_DIVISOR // account_bytes
    wanted = -(-2 * cgroups // _ACCOUNTS_STEP) * _ACCOUNTS_STEP
    return max(ACCOUNTS, min(wanted, most // _ACCOUNTS_STEP * _ACCOUNTS_STEP))


def watching(hook: Hook) -> Hook:
    """Return the hook at the same place that snapshots counters for calibration (probe.bpf.c)."""
    return Hook(hook.kind, hook.target, f"watch_{hook.function}", hook.argument)


class Programs:
    """The BPF programs of a recording and their maps.

    A child compiles them, unless they are cached, and then a thread loads them: call `wait` before any other
    method.

    `version` is the version of the cgroup hierarchy with the memory controller. `trace_all`: trace every
    cgroup, not only the selected ones (capture/bpf/roots.py). `accounts`: the room of the ledger
    (`accounts_for`). `ring_pages`: name -> pages of rings that differ from `RING_BYTES`. `forced`: the family
    of hooks to prefer (`Kind.family`). `stacks_bytes`: the bytes by which a process grows for each sample
    of its code; None: no samples. `copies_stacks`: a sample has a copy of the user stack. `btf` is the file
    with the kernel's types. Raises TracerError if the kernel has no types.
    """

    def __init__(
        self,
        *,
        version: int,
        trace_all: bool = False,
        accounts: int = ACCOUNTS,
        ring_pages: Mapping[str, int] | None = None,
        forced: str | None = None,
        stacks_bytes: int | None = None,
        copies_stacks: bool = False,
        btf: Path = VMLINUX,
    ) -> None:
        self.cpus = _possible_cpus()
        self.accounts = accounts
        self._version = version
        self._ring_pages = {name: size // mmap.PAGESIZE for name, size in RING_BYTES.items()}
        self._ring_pages |= ring_pages or {}
        self._btf = btf
        self._trace_all = trace_all
        self._forced = forced
        self._stacks_bytes = stacks_bytes
        self._copies_stacks = bool(stacks_bytes) and copies_stacks
        self._refused: dict[Way, str] = {}
        self._is_detached = False
        samples = (bool(stacks_bytes), self._copies_stacks)
        self._asked = (self.cpus, _tick_ns(), version, trace_all, forced, samples)
        self.choices: list[Choice] = []
        self._begin_compiling()

    def _begin_compiling(self) -> None:
        """Begin to compile for the first way of each signal that the kernel has not refused."""
        self._attacher: Attacher | None = None
        self._runnable: dict[str, Runnable] = {}
        asked = (*self._asked, list(self._refused.items()))
        self._compilation = Compilation(self._compose, asked, Cache(cache_folder()), self._btf)
        # The kernel verifies while we import. The thread is as urgent as the main thread, which waits for it.
        thread = ThreadPoolExecutor(1, "load", Urgency)
        self._loading = thread.submit(self._load_all)
        thread.shutdown(wait=False)

    def _compose(self, btf: Btf, closed: Mapping[str, str]) -> Source:
        """Return the source for a kernel. Raises TracerError if the kernel lacks a structure that all
        programs read.
        """
        if (unfit := struct_header.why_unfit(btf)) is not None:
            raise TracerError(f"{unfit}; see memcg-tracer doctor")
        offer = Offer(btf, closed)
        found = choose(offer, self._version, forced=self._forced, refused=self._refused)
        self.choices = [one for one in found if self._stacks_bytes or one.signal.stream != CODE_SAMPLE.name]
        hooks = [hook for choice in self.choices for hook in self._hooks(choice)]
        hooks += [watching(hook) for hook in self.counter_hooks()]
        return Source(source_text(btf, hooks), self._flags(), self.choices)

    def wait(self, warn: Callable[[str], None], notice: Callable[[str], None] = lambda _: None) -> None:
        """Wait until the programs are compiled and loaded.

        `notice` gets a line before a compilation, which takes seconds. If the kernel refuses the program of a
        way, `warn` gets a line and the next way is tried. Raises TracerError if a required signal has no way
        left, if BCC is needed and not installed, or if the kernel is unfit.
        """
        try:
            if not self._compilation.is_cached:
                notice("compiling the BPF programs for this kernel and these options: some seconds, once")
            while (refusal := self._loading.result()) is not None:
                way, why = refusal
                self._refused[way] = why
                warn(f"{why}: going on without {way}")
                self._loaded.close()
                self._begin_compiling()
        except BaseException:
            self.close()
            raise

    def _load_all(self) -> tuple[Way, str] | None:
        """Load the chosen programs. Return the first way that the kernel refuses, and why; else None."""
        unit = self._compilation.result()
        self.choices, self.types = unit.choices, unit.types
        for choice in self.choices:
            if choice.way is None and choice.signal.required:
                raise TracerError(
                    f"{choice.signal.name} is not available: {choice.why_not} ({choice.signal.without}); "
                    "see memcg-tracer doctor"
                )
        entries = dict.fromkeys(_BY_ACCOUNT, self.accounts)
        entries |= dict.fromkeys(_BY_ACCOUNT_AND_CPU, self.accounts * self.cpus)
        entries |= {f"{name}_ring": self.ring_bytes(name) for name in self._ring_pages}
        attacher = self._attacher = Attacher(
            unit.object_file, unit.types, self.cpus, entries, self._settings()
        )
        ways = {hook: one.way for one in self.choices if one.way for hook in self._hooks(one)}
        with ThreadPoolExecutor(_VERIFIERS, "verify", Urgency) as threads:
            runnable = threads.map(attacher.load_runnable, _RUN_BY_US)
            hooked = [threads.submit(attacher.load, hook) for hook in ways]
        deque(runnable, 0)  # raises the first refusal
        for way, loaded in zip(ways.values(), hooked, strict=True):
            try:
                loaded.result()
            except TracerError as error:
                return way, str(error).removesuffix("; see memcg-tracer doctor")
        return None

    def counter_hooks(self, *names: str) -> list[Hook]:
        """Return the hooks of the calibration signals with these names; without a name, of all of them."""
        return [
            hook
            for choice in self.choices
            if choice.signal.is_calibration and (not names or choice.signal.name in names)
            for hook in _all_hooks(choice)
        ]

    def _hooks(self, choice: Choice) -> tuple[Hook, ...]:
        """Return the hooks whose programs are loaded for the trace."""
        is_used = not choice.signal.is_calibration or (self._stacks_bytes and choice.signal.samples)
        return _all_hooks(choice) if is_used else ()

    @property
    def _loaded(self) -> Attacher:
        assert self._attacher is not None, "`wait` comes first"
        return self._attacher

    def _flags(self) -> list[str]:
        flags = [f"-D{machine().macro}", f"-DPAGE_SIZE={mmap.PAGESIZE}UL", f"-DTRACER_CPUS={self.cpus}"]
        flags += [f"-DTRACER_COMBINE_TICKS={max(_COMBINE_NS // _tick_ns(), 1)}"]
        flags += [f"-DTRACER_TICK_NS={_tick_ns()}"]
        flags += [f"-DTRACER_ACCOUNTS={ACCOUNTS}", f"-DTRACER_ROOTS={_ROOTS}"]
        flags += [f"-DTRACER_WANTED_PATHS={WANTED_PATHS}"]
        flags += [f"-DTRACER_SAMPLED={SAMPLED}", f"-DTRACER_SAMPLES_A_RUN={SAMPLES_A_RUN}"]
        flags += [f"-DTEST_RUN_ARGS={TEST_RUN_ARGS}"]
        flags += ["-DTRACE_ALL"] if self._trace_all else []
        flags += ["-DCGROUP_V1"] if self._version == 1 else []
        flags += ["-DSAMPLES_CODE"] if self._stacks_bytes else []
        flags += ["-DCOPIES_STACKS"] if self._copies_stacks else []
        return [*flags, "-g0", "-Wno-unused-function"]

    def _settings(self) -> dict[str, int]:
        """Return the numbers that differ between recordings of one compilation (bpf/shared/settings.h)."""
        sizes = {f"{name}_ring_bytes": self.ring_bytes(name) for name in self._ring_pages}
        return sizes | ({"stacks_bytes": self._stacks_bytes} if self._stacks_bytes else {})

    def run(self, name: str, args: Sequence[int] = (), cpu: int | None = None) -> int:
        """Run a program once, on `cpu` or on any CPU, and return its result. Raises OSError."""
        if name not in self._runnable:
            self._runnable[name] = Runnable(self._loaded.load_runnable(name))
        return self._runnable[name](args, cpu)

    def map(self, name: str) -> Map:
        """Return a map by its name in the sources."""
        return self._loaded.map(name)

    @property
    def rings(self) -> list[str]:
        """Return the names of the streams that have a ring, and of the ring of copies of stacks.

        A copy is in its ring before its sample is. So whoever reads the rings in this order has, with each
        sample, its copy.
        """
        streams = [stream.name for stream in STREAMS if self._stacks_bytes or not stream.needs_stacks]
        return streams + [STACK_COPY.name] * self._copies_stacks

    def ring_fd(self, name: str) -> int:
        """Return the file descriptor of a ring."""
        return self.map(f"{name}_ring").fd

    def ring_bytes(self, name: str) -> int:
        """Return the size of a ring in bytes."""
        return self._ring_pages[name] * mmap.PAGESIZE

    def attach(self, warn: Callable[[str], None]) -> None:
        """Attach the chosen programs. The programs that record OOM decisions come first: a ledger without
        these decisions explains nothing.

        A signal that the kernel refuses to attach loses its way in `choices`, and `warn` gets a line. Raises
        TracerError if the signal is required.
        """
        found = [one if one.signal.samples else self._attach(one, warn) for one in reversed(self.choices)]
        self.choices = found[::-1]

    def _attach(self, choice: Choice, warn: Callable[[str], None]) -> Choice:
        attached = []
        try:
            for hook in self._hooks(choice):
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

    @property
    def hooks_functions(self) -> bool:
        """Return whether functions are hooked: by code that has symbols only while it is attached."""
        hooks = (hook for choice in self.choices for hook in _all_hooks(choice))
        return any(hook.kind is not Kind.TYPED_TRACEPOINT for hook in hooks)

    def attach_hook(self, hook: Hook) -> None:
        """Attach one program."""
        self._loaded.attach(hook)

    def detach_hook(self, hook: Hook) -> None:
        """Detach one program."""
        self._loaded.detach(hook)

    def arm(self, kind: str) -> None:
        """Attach the programs that sample the code for growth of a kind of memory (`Signal.samples`).

        They forget the levels that they knew before: growth since then is of code that they did not see.
        Raises TracerError.
        """
        if kind in _KNOWN_LEVELS:
            try:
                self.map(_KNOWN_LEVELS[kind]).clear()
            except OSError as error:
                raise TracerError(f"what was known of growth cannot be cleared: {error.strerror}") from error
        for hook in self._samplers(kind):
            self.attach_hook(hook)

    def disarm(self, kind: str) -> None:
        """Detach these programs."""
        for hook in self._samplers(kind):
            self.detach_hook(hook)

    def _samplers(self, kind: str) -> list[Hook]:
        return [hook for one in self.choices if kind in one.signal.samples for hook in _all_hooks(one)]

    def runs(self, hook: Hook) -> Runs:
        """Return how often a hook's program ran, and how long, with statistics enabled. Raises OSError."""
        return self._loaded.runs(hook)

    def run_ns(self, stream: str | None = None) -> int:
        """Return the run time of all programs, or of one stream's programs, while statistics were enabled.

        Raises OSError.
        """
        if stream is None:
            return self._loaded.run_ns()
        hooks = {hook for c in self.choices if c.signal.stream == stream for hook in self._hooks(c)}
        return sum(self.runs(hook).total_ns for hook in hooks)

    def skipped(self) -> Counter[str]:
        """Return stream -> events at which the kernel skipped a program of the stream, in any cgroup: a task
        was preempted inside the same program on that CPU. Raises OSError.
        """
        counts: Counter[str] = Counter()
        for choice in self.choices:
            if not choice.signal.is_calibration:
                counts[choice.signal.stream] += sum(self.runs(hook).skipped for hook in self._hooks(choice))
        return counts

    def detach_all(self) -> None:
        """Detach all programs. Maps and rings stay readable."""
        self._loaded.detach_all()
        self._is_detached = True

    def drain(self) -> bool:
        """Cut the slices of the traced tasks that run now, and send the sums and runs that wait on any CPU.
        Return whether anything was active before (`is_active`).

        The program of the kernel's timers does the same every 10 ms.
        """
        waiting, running = self._waiting_cpus()
        for cpu in {*waiting, *running}:
            with suppress(OSError):  # the CPU is offline: nothing of ours runs there
                self.run("tick", [self._is_detached], cpu)
        return self._are_active(waiting, running)

    def is_busy(self) -> bool:
        """Return whether sums or runs wait on any CPU."""
        return bool(self._waiting_cpus()[0])

    def is_active(self) -> bool:
        """Return whether sums or runs wait on any CPU, or a traced task runs there. Without a filter, all
        tasks are traced, this process included: only what they change counts.
        """
        return self._are_active(*self._waiting_cpus())

    def _are_active(self, waiting: list[int], running: list[int]) -> bool:
        return bool(waiting or (running and not self._trace_all))

    def rest(self, is_resting: bool) -> None:
        """Let the first event from now on wake this process (`fds` of the rings), or stop that."""
        self.map("resting")[0] = is_resting

    def _waiting_cpus(self) -> tuple[list[int], list[int]]:
        """Return the CPUs on which sums or runs wait, and those on which a traced task runs."""
        waiting, running = [], []
        slices, page_runs = (element.read() for element in self._cpu_states)
        for cpu in range(self.cpus):
            task = slices[cpu]
            runs = (run for of_task in page_runs[cpu].sets for run in of_task.runs)
            if task.waiting or any(run.record.folios for run in runs):
                waiting.append(cpu)
            if task.is_running:
                running.append(cpu)
        return waiting, running

    @cached_property
    def _cpu_states(self) -> tuple[Element, Element]:
        return self.map("slices").element(0), self.map("page_runs").element(0)

    def close(self) -> None:
        """Detach everything and free the maps."""
        self._compilation.stop()
        self._loading.exception()  # wait for the thread
        if self._attacher is not None:
            self._attacher.close()


def _all_hooks(choice: Choice) -> tuple[Hook, ...]:
    return choice.way.hooks if choice.way else ()


def _tick_ns() -> int:
    """Return the length of a timer tick: coarse clocks advance by it (hrtimer_get_res, kernel/time/)."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1
