"""Compile the BPF programs with the distribution's BCC, calibrate and attach them. The only importer of
`bcc`."""

from __future__ import annotations

import importlib.util
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import dropwhile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import tracer
from tracer.capture.bpf_syscall import machine, run_program
from tracer.errors import TracerError
from tracer.kernel import layout
from tracer.kernel.btf import Btf
from tracer.kernel.probes import SIGNALS, Signal, needed

SOURCES: Final = (
    "events.h",
    "kernel.h",
    "tracked.h",
    "syscalls.h",
    "identity.bpf.c",
    "reclaim.bpf.c",
    "counts.bpf.c",
    "charge.bpf.c",
    "pagecache.bpf.c",
    "oom.bpf.c",
    "probe.bpf.c",
)
"""In the order in which they are compiled, as one unit: they share maps, and clang starts once."""

RING_BYTES: Final[Mapping[str, int]] = {
    "charge": 4 << 20,
    "pagecache": 16 << 20,
    "reclaim": 1 << 20,
    "oom": 256 << 10,
    "cgroup": 256 << 10,
    "task": 256 << 10,
    "inode": 4 << 20,
    "watched": 4 << 20,
}
"""Ring sizes: powers of two, and whole pages of any size that a kernel has (up to 64 KiB). They are allocated
once, not charged per event."""

_COMBINE_NS: Final = 10_000_000  # how long the kernel program may hold a sum of charges back
_CLOCK_MONOTONIC_COARSE: Final = 6  # include/uapi/linux/time.h; Python has no name for it

_PROBE_FRAMES: Final = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_")
"""How a raw tracepoint's program comes to run (kernel/trace/bpf_trace.c, include/trace/bpf_probe.h)."""

_RUN_BY_US: Final = (
    "drain",
    "find_cpu_offset",
    "find_map",
    "find_registers",
    "find_memcg",
    "read_memcg",
    "settle",
)


def find_bcc() -> ModuleType:
    """Import BCC, from the distribution's folder where this Python does not see it.

    PyPI has a package of the same name that is something else, so a `bcc` without `BPF` is passed over.
    """
    places = [
        *Path("/usr/lib").glob("python3*/dist-packages"),
        *Path("/usr/lib").glob("python3*/site-packages"),
    ]
    found_wrong = False
    try:
        module = importlib.import_module("bcc")
    except ImportError:
        pass
    except Exception:  # whatever a package of another purpose may raise
        found_wrong = True
    else:
        if hasattr(module, "BPF"):
            return module
        found_wrong = True
    for place in places:
        init = place / "bcc" / "__init__.py"
        if init.is_file():
            return _import_from(init)
    hint = "install the distribution's: apt-get install python3-bpfcc (Fedora, RHEL: python3-bcc)"
    if found_wrong:
        raise TracerError(
            f"the `bcc` that Python finds is PyPI's package, not the BPF Compiler Collection; {hint}"
        )
    raise TracerError(f"BCC, the BPF Compiler Collection, is not installed; {hint}")


def _import_from(init: Path) -> ModuleType:
    for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("bcc", init, submodule_search_locations=[str(init.parent)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        del sys.modules["bcc"]
        raise TracerError(f"BCC is installed in {init.parent} but does not load: {error}") from None
    return module


def bpf_folder() -> Path:
    """Where the BPF sources are: beside the package in a checkout, inside it when installed."""
    package = Path(tracer.__file__).parent
    return next(p for p in (package / "bpf", package.parent / "bpf") if (p / "events.h").is_file())


def source_text(btf: Btf) -> str:
    """The one compilation unit: this kernel's structures, then our sources, each under its own name in
    messages.
    """
    folder = bpf_folder()
    parts = [f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in SOURCES]
    return "\n".join([layout.header(btf), *parts])


@contextmanager
def _output_to(log: Any) -> Iterator[None]:
    """BCC and LLVM write to descriptors 1 and 2 themselves; what they say belongs into our error."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        for fd in saved:
            os.dup2(log.fileno(), fd)
        yield
    finally:
        for fd, copy in saved.items():
            os.dup2(copy, fd)
            os.close(copy)


_SAY_LAST_WORDS: Final = """
read -r _ && exit
last=$(tail -n 1 "/proc/self/fd/$1" | tr -cd '[:print:]')
echo "memcg-tracer: error: the process ended while BCC compiled the BPF programs: ${last:-it said nothing}"
"""


@contextmanager
def _outlived(log: Any) -> Iterator[None]:
    """LLVM ends the process by itself on what it calls fatal. Then a shell that waits says what is in the
    log.
    """
    command = ["/bin/sh", "-c", _SAY_LAST_WORDS, "sh", str(log.fileno())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=2, pass_fds=(log.fileno(),), start_new_session=True
    ) as shell:
        try:
            yield
        finally:
            shell.communicate(b"\n")


class Programs:
    """The programs and their maps. Compiling takes most of a recorder's start and needs no Python: it goes on
    in a thread from here on, and `wait` must come before anything else.

    `roots`: cgroup ids to trace with all below them; None traces every cgroup. `version`: of the cgroup
    hierarchy that has the memory controller. `ring_pages`: rings that are to have another size than
    `RING_BYTES`, in pages. While it compiles, what this process writes to its standard streams is taken for
    BCC's. Raises `TracerError` where BCC cannot be had; `wait` does where this kernel does not take them.
    """

    def __init__(
        self,
        btf: Btf,
        *,
        version: int,
        roots: Sequence[int] | None,
        ring_pages: Mapping[str, int] | None = None,
    ) -> None:
        self.cpus = _possible_cpus()
        self._version = version
        self._ring_pages = {name: size // mmap.PAGESIZE for name, size in RING_BYTES.items()}
        self._ring_pages |= ring_pages or {}
        self._btf = btf
        self._functions: dict[str, Any] = {}
        self.attached: dict[str, str] = {}
        self._roots = roots
        os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "include")
        bcc, text, flags = find_bcc(), source_text(btf).encode(), self._flags()
        compiler = ThreadPoolExecutor(1, thread_name_prefix="clang")
        self._compiled = compiler.submit(_compile, bcc, text, flags)
        compiler.shutdown(wait=False)

    @property
    def _bpf(self) -> Any:
        return self._compiled.result()

    def wait(self) -> None:
        """Until the programs are compiled, and those that we run ourselves are loaded."""
        try:
            for root in self._roots or ():
                self.trace_below(root)
            for name in _RUN_BY_US:
                self._load(name)
        except BaseException:
            self.close()
            raise

    def _flags(self) -> list[str]:
        flags = [f"-D{machine().macro}", f"-DPAGE_SIZE={mmap.PAGESIZE}UL", f"-DTRACER_CPUS={self.cpus}"]
        flags += [f"-DTRACER_COMBINE_TICKS={max(_COMBINE_NS // _tick_ns(), 1)}"]
        flags += [f"-D{name.upper()}_RING_PAGES={pages}" for name, pages in self._ring_pages.items()]
        flags += [
            f"-DHAS_TRACEPOINT_{s.tracepoint}" for s in SIGNALS if self._btf.has_tracepoint(s.tracepoint)
        ]
        flags += ["-DTRACE_ALL"] if self._roots is None else []
        flags += ["-DCGROUP_V1"] if self._version == 1 else []
        return [*flags, "-Wno-unused-function"]

    def _load(self, name: str) -> Any:
        if name not in self._functions:
            raw_tracepoint = type(self._bpf).RAW_TRACEPOINT
            with tempfile.TemporaryFile() as log:
                try:
                    with _output_to(log):
                        self._functions[name] = self._bpf.load_func(name.encode(), raw_tracepoint)
                except (Exception, SystemExit) as error:
                    raise TracerError(
                        _refusal(f"the kernel refuses the BPF program {name}", log, error)
                    ) from error
        return self._functions[name]

    def run(self, name: str, args: Sequence[int] = (), cpu: int | None = None) -> int:
        """Run one of our own programs (bpf/probe.bpf.c) and return its result."""
        return run_program(self._load(name).fd, args, cpu)

    def map(self, name: str) -> Any:
        """A map, as BCC's table object."""
        return self._bpf[name.encode()]

    def ring_fd(self, name: str) -> int:
        """The descriptor of a stream's ring."""
        return int(self.map(f"{name}_ring").map_fd)

    def ring_bytes(self, name: str) -> int:
        """The size of a stream's ring."""
        return self._ring_pages[name] * mmap.PAGESIZE

    def trace_below(self, cgroup_id: int) -> None:
        """Trace this cgroup and all below it, from now on."""
        table = self.map("roots")
        table[table.Key(cgroup_id)] = table.Leaf(1)
        self.map("memcgs").clear()

    def attach(self) -> None:
        """Load and attach every signal that this kernel has, decisions first: a ledger without them explains
        nothing.
        """
        for signal in reversed(needed(self._version)):
            if self._btf.has_tracepoint(signal.tracepoint):
                self._attach(signal)
            elif signal.required:
                raise TracerError(
                    f"this kernel has no tracepoint {signal.tracepoint} ({signal.without}); "
                    "see memcg-tracer doctor"
                )

    def _attach(self, signal: Signal) -> None:
        try:
            self.attach_program(signal.tracepoint, signal.program)
        except TracerError:
            if signal.required:
                raise
            return
        self.attached[signal.tracepoint] = "raw_tracepoint"

    def attach_program(self, tracepoint: str, program: str) -> None:
        """Attach one program by hand, for as long as it takes to learn something."""
        self._load(program)
        with tempfile.TemporaryFile() as log:
            try:
                with _output_to(log):
                    self._bpf.attach_raw_tracepoint(tracepoint.encode(), program.encode())
            except (Exception, SystemExit) as error:
                raise TracerError(_refusal(f"cannot attach to {tracepoint}", log, error)) from error

    def detach(self, tracepoint: str) -> None:
        """Detach what is attached to a tracepoint."""
        self._bpf.detach_raw_tracepoint(tracepoint.encode())
        self.attached.pop(tracepoint, None)

    def detach_all(self) -> None:
        """Stop all signals; maps and rings stay readable."""
        for tracepoint in list(self.attached):
            self.detach(tracepoint)

    def drain(self) -> bool:
        """Send the sums that wait, on the CPUs that have any. False where some could not leave yet."""
        table = self.map("combine_state")
        for cpu, state in enumerate(table[table.Key(0)]):
            if state.waiting:
                with suppress(OSError):  # the CPU is offline: nothing of ours runs there
                    self.run("drain", cpu=cpu)
        return not any(state.waiting for state in table[table.Key(0)])

    def take_residue(self) -> dict[tuple[int, int], int]:
        """(cgroup id, category) -> bytes of sums whose record was lost; exact once all is detached."""
        return {(int(k.cgroup_id), int(k.category)): int(v.value) for k, v in self.map("residue").items()}

    @property
    def counts_reclaim(self) -> bool:
        """Whether the kernel's scans and steals are counted (bpf/counts.bpf.c)."""
        return "count_memcg_events" in self.attached or layout.reclaim_counts_are_node_stats(self._btf)

    def reclaim_counts(self, cgroup_id: int) -> dict[str, int]:
        """The kernel's counts of pages scanned and stolen from a cgroup since the begin; {} where not
        counted.
        """
        if not self.counts_reclaim:
            return {}
        table = self.map("reclaim_counts")
        try:
            counts = table[table.Key(cgroup_id)]
        except KeyError:
            return {"pgscan": 0, "pgsteal": 0}
        return {"pgscan": int(counts.pgscan), "pgsteal": int(counts.pgsteal)}

    def kernel_stack(self, stack_id: int) -> list[str]:
        """The frames of a kernel stack, innermost first, as symbol+offset, without those of our own probe."""
        frames = [_symbol(self._bpf.ksym(address, show_offset=True)) for address in self._addresses(stack_id)]
        return list(dropwhile(lambda frame: frame.startswith(_PROBE_FRAMES), frames))

    def user_stack(self, stack_id: int, tgid: int) -> list[str]:
        """The frames of a user stack; addresses where the process is gone or has no symbols."""
        names = [self._bpf.sym(address, tgid, show_module=True) for address in self._addresses(stack_id)]
        return [
            _symbol(name) if b"unknown" not in name else f"{address:#x}"
            for name, address in zip(names, self._addresses(stack_id), strict=True)
        ]

    def _addresses(self, stack_id: int) -> list[int]:
        try:
            return list(self.map("stacks").walk(stack_id))
        except KeyError:
            return []

    def lost(self) -> dict[str, int]:
        """Stream -> records that found their ring full, since the begin."""
        counts = self.map("lost")
        streams = [name for name in RING_BYTES if name != "watched"]  # in the order of enum stream
        return {name: sum(counts[counts.Key(number)]) for number, name in enumerate(streams)}

    def close(self) -> None:
        """Detach everything and free the maps."""
        if self._compiled.exception() is None:
            self._bpf.cleanup()


def _compile(bcc: ModuleType, text: bytes, flags: list[str]) -> Any:
    with tempfile.TemporaryFile() as log:
        try:
            with _outlived(log), _output_to(log):
                return bcc.BPF(text=text, cflags=flags)
        except (Exception, SystemExit) as error:
            raise TracerError(_refusal("BCC cannot compile the BPF programs", log, error)) from error


def _symbol(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _tick_ns() -> int:
    """The kernel's timer tick, which the coarse clocks advance by (hrtimer_get_res in kernel/time/)."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1


def _refusal(what: str, log: Any, error: BaseException) -> str:
    """One line for the user; the whole log is in the exception's cause, which --debug shows."""
    log.seek(0)
    text = log.read().decode(errors="replace")
    error.add_note(text)
    said = [line for line in text.splitlines() if line.strip()]
    lines = [line for line in said if "error:" in line] or [str(error)]
    if isinstance(error, SystemExit):
        lines = said[-1:] or ["BCC gave up and said nothing"]
    if os.geteuid() != 0:
        return f"{what}: tracing needs root (run it with sudo)"
    return f"{what}: {lines[0].strip()}; see memcg-tracer doctor"
