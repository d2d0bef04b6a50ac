"""A trial of what a recording needs: BCC, the kernel log, the BPF programs, and the cost of their events.

`doctor` shows the result, together with what the kernel offers (kernel/features.py).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

from tracer.capture.bpf.compiled.bcc_module import find_bcc
from tracer.capture.bpf.hooks import Choice, Offer, choose
from tracer.capture.bpf.load import Programs
from tracer.capture.contents import content_rows
from tracer.capture.learn import event_cost
from tracer.capture.learn.calibration import calibrate
from tracer.capture.learn.event_cost import EventCost
from tracer.capture.rows.kmsg_stream import KMSG, READ, open_kernel_log
from tracer.capture.rows.mapping_rows import AGAIN_S, AT_ONCE_S, MOST_PROCESSES, MOST_SHARE
from tracer.capture.symbols import unwinding
from tracer.errors import TracerError
from tracer.kernel.anatomy.process_anatomy import MOST_RSS_BYTES, MOST_S, PROC
from tracer.kernel.anatomy.smaps import MOST_BYTES
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy
from tracer.kernel.config import options_set
from tracer.kernel.features import Check, State
from tracer.kernel.probes import Kind, Signal, needed
from tracer.units import size

_check: Final = partial(Check, area="tracer")
_DUMP_TASKS: Final = Path("/proc/sys/vm/oom_dump_tasks")
_SAMPLE_BYTES: Final = 1 << 20  # as by default

_BUILT_BY: Final = {
    Kind.FENTRY.value: (
        "CONFIG_BPF_JIT",
        "CONFIG_FUNCTION_TRACER",
        "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    ),
    Kind.KPROBE.value: ("CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS"),
}
"""Kernel options that hooks at functions need, each after those that it depends on."""


class SignalEntry(TypedDict):
    """The entry of a signal in `doctor --json`. `event_ns` is the mean cost of one of `events` events."""

    name: str
    stream: str
    hook: str | None
    meaning: str | None
    detail: str | None
    without: str
    required: bool
    event_ns: float | None
    events: int | None


@dataclass(frozen=True)
class Finding:
    """A signal, the choice for it (None: nothing could be tried), and its cost (None: not measured)."""

    signal: Signal
    choice: Choice | None = None
    cost: EventCost | None = None

    def document(self) -> SignalEntry:
        """Return the entry for `doctor --json`; null stands for unknown."""
        choice, cost = self.choice, self.cost
        way = None if choice is None else choice.way
        return {
            "name": self.signal.name,
            "stream": self.signal.stream,
            "hook": str(way) if way else None,
            "meaning": None if choice is None else choice.meaning,
            "detail": None if choice is None else choice.why_not or None,
            "without": self.signal.without,
            "required": self.signal.required,
            "event_ns": None if cost is None or cost.event_ns is None else round(cost.event_ns, 1),
            "events": None if cost is None else cost.events,
        }


@dataclass(frozen=True)
class Examination:
    """The result: checks, and one finding for each signal of this machine's cgroup version."""

    checks: list[Check]
    signals: list[Finding]


def examine(*, may_load: bool, measure: bool) -> Examination:
    """Check BCC and the kernel log, and try the programs.

    `may_load`: the checks of the kernel permit a trial; otherwise the programs are not tried. `measure`: also
    measure the cost of events with a short workload, in a cgroup made for it. This takes half a second.
    """
    compiler = bcc()
    beside = [
        kernel_log(KMSG, _DUMP_TASKS),
        process_memory(PROC / "self"),
        page_cache(content_rows.expected_s),
    ]
    beside.append(stack_unwinding(unwinding.why_not()))
    if not may_load:
        return Examination(
            [compiler, *beside, _untried()], [Finding(signal) for signal in needed(_version())]
        )
    types, hierarchy = Btf.load(), memory_hierarchy()
    offer = Offer.look(types)
    functions = function_hooks(offer.closed, options_set())
    if compiler.state is not State.OK:
        found = [Finding(choice.signal, choice) for choice in choose(offer, hierarchy.version)]
        return Examination([compiler, *beside, functions, _untried()], found)
    tried = try_programs(types, hierarchy, measure=measure)
    return Examination([compiler, *beside, functions, *tried.checks], tried.signals)


def bcc() -> Check:
    """Check that the distribution's BCC can be imported, and show its version."""
    try:
        module = find_bcc()
    except TracerError as error:
        return _check(
            "BCC",
            State.MISSING,
            str(error),
            "the BPF programs cannot be compiled",
            prevents_recording=True,
        )
    return _check("BCC", State.OK, f"{module.__version__} in {(module.__path__ or [''])[0]}")


def kernel_log(device: Path, dump_tasks: Path) -> Check:
    """Check that the kernel's report of a kill can be read, and that it lists the candidates.

    `dump_tasks` is the file of vm.oom_dump_tasks (Documentation/admin-guide/sysctl/vm.rst).
    """
    with closing(open_kernel_log(device)) as log:
        state = log.state
    if state != READ:
        return _check(
            "kernel log",
            State.MISSING,
            state,
            "a kill is explained without the kernel's report, which completes and confirms the trace",
            f"run it on the host, or give the container {device}",
        )
    if dump_tasks.exists() and dump_tasks.read_text("ascii").strip() == "0":
        return _check(
            "kernel log",
            State.DEGRADED,
            f"{device} can be read; vm.oom_dump_tasks is 0",
            "the kernel's report of a kill does not list the candidates",
            "sysctl vm.oom_dump_tasks=1",
        )
    return _check("kernel log", State.OK, f"{device} can be read")


def process_memory(process: Path) -> Check:
    """Check that the kernel shows the mappings of processes, and state what looking at them may cost.

    `process` is a directory of /proc.
    """
    if not (process / "smaps").exists():
        return _check(
            "process memory",
            State.MISSING,
            "the kernel has no /proc/PID/smaps (CONFIG_PROC_PAGE_MONITOR)",
            "a kill is explained without the heap, stacks and mappings of the process",
            "boot a kernel of the distribution: all current ones have it",
        )
    return _check(
        "process memory",
        State.OK,
        f"smaps of the {MOST_PROCESSES} largest processes of a cgroup near its limit, each at most every "
        f"{AGAIN_S:g} s: at most {MOST_SHARE * 100:g} % of a CPU and {AT_ONCE_S:g} s; {size(MOST_BYTES)} and "
        f"{MOST_S:g} s for a process; none of a process above {size(MOST_RSS_BYTES)}",
    )


def page_cache(expected_s: Callable[[], float]) -> Check:
    """Check whether looks at the page cache of cgroups fit their budget (`capture.contents.content_rows`).

    `expected_s` returns the CPU time of a look in seconds, or raises TracerError.
    """
    budget = f"at most {content_rows.MOST_SHARE * 100:g} % of a CPU and {content_rows.AT_ONCE_S:g} s"
    cost = "the files of page cache from before a recording are not known"
    try:
        look_s = expected_s()
    except TracerError as error:
        return _check("page cache", State.MISSING, str(error), cost, "run it as root of the host")
    detail = (
        f"its files, of cgroups with a limit at the start and near the limit: {look_s:.1f} s of CPU a look"
    )
    if look_s > content_rows.AT_ONCE_S:
        return _check("page cache", State.DEGRADED, f"{detail}, which is more than {budget}", cost)
    return _check("page cache", State.OK, f"{detail}, {budget}")


def stack_unwinding(why_not: str | None) -> Check:
    """Return the check whether stacks of native code can be unwound, given the reason why not."""
    if why_not is None:
        return _check("unwinding", State.OK, "by libdw, also without frame pointers")
    return _check(
        "unwinding",
        State.MISSING,
        why_not,
        "the callers in native code that keeps no frame pointers are not known",
        f"install libdw ({', '.join(unwinding.PACKAGES)})" if unwinding.is_known_here() else "",
    )


def function_hooks(closed: Mapping[str, str], options: Collection[str] | None) -> Check:
    """Check whether the kernel takes programs at its functions, by fentry or by kprobe.

    `closed`: family of hooks -> the reason why it is closed. `options`: the options that are set in the
    kernel's configuration; None if it cannot be read.
    """
    reasons = []
    for family, why in closed.items():
        unset = [] if options is None else [name for name in _BUILT_BY[family] if name not in options]
        if unset:
            reasons.append(f"{why}: {unset[0]} is not set")
        else:
            reasons.append(why if options is None else f"{why}, though the kernel is built for it")
    there = [f"by {family}" for family in _BUILT_BY if family not in closed]
    if there:
        return _check("function hooks", State.OK, "; ".join([" and ".join(there), *reasons]))
    return _check(
        "function hooks",
        State.MISSING,
        "; ".join(reasons),
        "the signals that no tracepoint offers are absent",
        "boot a kernel of the distribution: today's have both",
    )


def try_programs(types: Btf, hierarchy: Hierarchy, *, measure: bool) -> Examination:
    """Compile, load, attach and detach all programs. No cgroup is traced, except the one of `measure`."""
    begin = time.monotonic()
    warnings: list[str] = []
    checks: list[Check] = []
    costs: Mapping[str, EventCost] = {}
    choices: list[Choice] = []
    try:
        choices = choose(Offer.look(types), hierarchy.version)
        programs = Programs(version=hierarchy.version, stacks_bytes=_SAMPLE_BYTES)
        programs.wait(warnings.append)
        try:
            if measure:
                calibrate(programs, programs.types, hierarchy)
            programs.attach(warnings.append)
            choices = [_armed(programs, choice) for choice in programs.choices]
            checks.append(_attached(choices, warnings, time.monotonic() - begin))
            if measure:
                costs = event_cost.measure(programs, hierarchy)
        finally:
            programs.close()
    except TracerError as error:
        unknown = _check("event costs", State.UNKNOWN, str(error), "the cost of an event is unknown here")
        checks.append(unknown if checks else _refused(error))
    known = {choice.signal: choice for choice in choices}
    signals = [one for one in needed(hierarchy.version) if one in known or not one.only_with]
    return Examination(checks, [Finding(one, known.get(one), costs.get(one.name)) for one in signals])


def _armed(programs: Programs, choice: Choice) -> Choice:
    """Attach and detach the programs that sample code; a signal that the kernel refuses loses its way."""
    try:
        for kind in choice.signal.samples:
            programs.arm(kind)
            programs.disarm(kind)
    except TracerError as error:
        return Choice(choice.signal, None, str(error))
    return choice


def _attached(choices: list[Choice], warnings: list[str], seconds: float) -> Check:
    count = sum(choice.way is not None for choice in choices)
    summary = f"{count} of {len(choices)} signals attached in {seconds:.2f} s, and detached"
    if not warnings:
        return _check("programs", State.OK, summary)
    return _check(
        "programs",
        State.DEGRADED,
        f"{summary}; {'; '.join(warnings)}",
        "these signals are absent, or come from costlier hooks",
    )


def _refused(error: TracerError) -> Check:
    remedy = "memcg-tracer --debug record -d 1 shows the kernel's full message"
    # A verifier that refuses a program says EACCES. The capabilities were looked at before.
    is_forbidden = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EPERM
    if is_forbidden and _has_seccomp_filter():
        remedy = (
            "a seccomp filter may forbid bpf(2), as those of older container runtimes do even with CAP_BPF: "
            "update the runtime, or start the container with --security-opt seccomp=unconfined (Kubernetes: "
            "seccompProfile: {type: Unconfined})"
        )
    return _check(
        "programs",
        State.MISSING,
        str(error).replace("; see memcg-tracer doctor", ""),
        "nothing can be traced",
        remedy,
        prevents_recording=True,
    )


def _has_seccomp_filter(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether this process is under a filter of system calls (proc_pid_status(5), "Seccomp")."""
    return "\nSeccomp:\t2\n" in status.read_text("ascii", "replace")


def _untried() -> Check:
    """Return the check of programs that were not tried."""
    return _check("programs", State.UNKNOWN, "not tried, because of what is missing")


def _version() -> int:
    """Return the cgroup version of the memory controller; without one, 1, which has all signals."""
    try:
        return memory_hierarchy().version
    except TracerError:
        return 1
