"""The trial of BCC, the kernel log and the BPF programs."""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EPERM
from pathlib import Path

import pytest

from tracer.capture import trial
from tracer.capture.bpf.hooks import Choice
from tracer.capture.bpf.load import Programs
from tracer.capture.learn import event_cost
from tracer.capture.learn.event_cost import EventCost
from tracer.capture.rows.kmsg_stream import READ, KernelLog
from tracer.capture.symbols import unwinding
from tracer.errors import TracerError
from tracer.kernel.btf import VMLINUX, Btf, KnownTypes
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy
from tracer.kernel.cgroups.containers import EPHEMERAL_PREFIX
from tracer.kernel.features import State
from tracer.kernel.probes import SIGNALS, Signal, needed

needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason=f"this kernel has no {VMLINUX}")
PROVOKED = ("memory by kind", "cache added", "cache deleted", "memcg reclaim", "process end")
"""Signals that the measured workload causes on every kernel."""


def no_bcc() -> None:
    raise TracerError("BCC is not installed; install the distribution's: apt-get install python3-bpfcc")


@needs_btf
def test_examine_without_bcc_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "find_bcc", no_bcc)
    found = trial.examine(may_load=True, measure=True)
    checks = {check.name: check for check in found.checks}
    assert (checks["BCC"].state, checks["BCC"].prevents_recording) == (State.MISSING, True)
    assert "python3-bpfcc" in checks["BCC"].detail
    assert checks["programs"].state is State.UNKNOWN
    assert all(signal.choice and signal.cost is None for signal in found.signals), (
        "the offered signals are known"
    )


def test_examine_without_loading_leaves_signals_unknown() -> None:
    found = trial.examine(may_load=False, measure=True)
    assert found.checks[-1].state is State.UNKNOWN
    documents = [finding.document() for finding in found.signals]
    assert {(one["hook"], one["meaning"], one["event_ns"]) for one in documents} == {(None, None, None)}
    of_both = {signal.name for signal in SIGNALS if signal.only_version is None}
    assert {one["name"] for one in documents} >= of_both


@pytest.mark.parametrize(("has_smaps", "state"), [(True, State.OK), (False, State.MISSING)])
def test_mappings_of_processes_are_there_if_the_kernel_has_smaps(
    tmp_path: Path, has_smaps: bool, state: State
) -> None:
    if has_smaps:
        (tmp_path / "smaps").touch()
    check = trial.process_memory(tmp_path)
    assert check.state is state
    assert bool(check.cost) is not has_smaps


def raise_hidden() -> float:
    raise TracerError("the kernel does not show where memory is")


@pytest.mark.parametrize(
    ("expected_s", "state"),
    [(lambda: 0.4, State.OK), (lambda: 5.3, State.DEGRADED), (raise_hidden, State.MISSING)],
)
def test_looks_at_the_page_cache_fit_their_budget_or_it_is_said(
    expected_s: Callable[[], float], state: State
) -> None:
    check = trial.page_cache(expected_s)
    assert check.state is state
    assert bool(check.cost) is (state is not State.OK)
    assert not check.prevents_recording


def test_kernel_log_that_cannot_be_read_is_missing(tmp_path: Path) -> None:
    device, dump_tasks = tmp_path / "kmsg", tmp_path / "oom_dump_tasks"
    absent = trial.kernel_log(device, dump_tasks)
    device.touch()
    other = trial.kernel_log(device, dump_tasks)
    assert (absent.state, other.state) == (State.MISSING, State.MISSING)
    assert absent.detail == f"{device}: No such file or directory"
    assert other.detail == f"{device} is not the kernel log here"
    assert not absent.prevents_recording


@pytest.mark.parametrize(("says", "state"), [(None, State.OK), ("1\n", State.OK), ("0\n", State.DEGRADED)])
def test_kernel_log_without_candidates_is_degraded(
    says: str | None, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "open_kernel_log", lambda _: KernelLog(None, READ))
    dump_tasks = tmp_path / "oom_dump_tasks"
    if says is not None:
        dump_tasks.write_text(says)
    check = trial.kernel_log(tmp_path / "kmsg", dump_tasks)
    assert check.state is state
    assert ("oom_dump_tasks" in check.detail) == (state is State.DEGRADED)


@needs_btf
def test_refused_program_is_reported_with_the_kernels_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TracerError(
            "the kernel refuses the BPF program drain: Permission denied; see memcg-tracer doctor"
        )

    monkeypatch.setattr(trial, "Programs", refuse)
    (check,) = trial.try_programs(Btf.load(), memory_hierarchy(), measure=True).checks
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert check.detail == "the kernel refuses the BPF program drain: Permission denied"


@needs_btf
@pytest.mark.parametrize(("is_filtered", "number"), [(True, EPERM), (True, EACCES), (False, EPERM)])
def test_seccomp_is_named_only_where_it_may_be_why(
    monkeypatch: pytest.MonkeyPatch, is_filtered: bool, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TracerError("the kernel refuses the BPF map slices") from OSError(number, "refused")

    monkeypatch.setattr(trial, "Programs", refuse)
    monkeypatch.setattr(trial, "_has_seccomp_filter", lambda: is_filtered)
    (check,) = trial.try_programs(Btf.load(), memory_hierarchy(), measure=True).checks
    assert ("seccomp" in (check.remedy or "")) is (is_filtered and number == EPERM)
    assert check.remedy


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_seccomp_filter_is_mode_2(tmp_path: Path, mode: int) -> None:
    (tmp_path / "status").write_text(f"Name:\tseccomp\nSeccomp:\t{mode}\nSeccomp_filters:\t2\n")
    assert trial._has_seccomp_filter(tmp_path / "status") is (mode == 2)


class Attached(Programs):
    """Programs that load and attach, and note that they were closed."""

    closed = False
    refused = ""

    def __init__(self, *_: object, **__: object) -> None:
        self.choices = [Choice(signal, signal.ways[0]) for signal in needed(1)]
        self.types = KnownTypes({}, {}, {})

    def wait(self, warn: Callable[[str], None], notice: Callable[[str], None] = lambda _: None) -> None:
        pass

    def attach(self, warn: Callable[[str], None]) -> None:
        warn("the kernel refuses the BPF program a: going on without fentry a")

    def arm(self, kind: str) -> None:
        if kind == self.refused:
            raise TracerError("the kernel refuses the BPF program rss_stat")

    def disarm(self, kind: str) -> None:
        pass

    def close(self) -> None:
        Attached.closed = True


def test_signal_whose_samples_the_kernel_refuses_has_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attached, "refused", "anon")
    programs = Attached()
    found = {one.signal.name: trial._armed(programs, one) for one in programs.choices}
    assert [name for name, one in found.items() if one.way is None] == [
        "anonymous growth",
        "anonymous page",
        "memory moved",
    ]
    assert "rss_stat" in found["anonymous growth"].why_not


@needs_btf
def test_failed_measurement_leaves_the_signals_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TracerError("cgroups below /sys/fs/cgroup have no memory controller")

    monkeypatch.setattr(trial, "Programs", Attached)
    monkeypatch.setattr(trial, "calibrate", lambda *_: {})
    monkeypatch.setattr(event_cost, "measure", fail)
    found = trial.try_programs(Btf.load(), Hierarchy(1, Path("/sys/fs/cgroup/memory"), "/"), measure=True)
    programs, costs = found.checks
    assert (programs.state, costs.state) == (State.DEGRADED, State.UNKNOWN)
    assert "going on without fentry a" in programs.detail
    assert costs.detail == "cgroups below /sys/fs/cgroup have no memory controller"
    assert not costs.prevents_recording
    assert {finding.document()["meaning"] for finding in found.signals} == {"exact"}
    assert Attached.closed


def test_stack_unwinding_without_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.stack_unwinding(None).state is State.OK
    check = trial.stack_unwinding("libdw.so.1 (elfutils) is not installed")
    assert (check.state, check.prevents_recording) == (State.MISSING, False)
    monkeypatch.setattr(unwinding, "is_known_here", lambda: True)
    assert "libdw1" in trial.stack_unwinding("not installed").remedy
    monkeypatch.setattr(unwinding, "is_known_here", lambda: False)
    assert trial.stack_unwinding("only x86_64 is known").remedy == ""


def test_function_hooks_by_one_family_are_ok() -> None:
    assert trial.function_hooks({}, None).detail == "by fentry and by kprobe"
    one = trial.function_hooks({"fentry": "fentry is closed here (x)"}, None)
    assert (one.state, one.detail) == (State.OK, "by kprobe; fentry is closed here (x)")


def test_function_hooks_closed_name_the_option_that_is_not_set() -> None:
    closed = {"fentry": "fentry is closed here (x)", "kprobe": "this kernel has no kprobes"}
    built = {"CONFIG_BPF_JIT", "CONFIG_FUNCTION_TRACER", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"}
    check = trial.function_hooks(closed, built)
    assert (check.state, check.prevents_recording) == (State.MISSING, False)
    assert "closed here (x), though the kernel is built for it" in check.detail
    assert "no kprobes: CONFIG_KPROBES is not set" in check.detail
    without = trial.function_hooks(closed, built - {"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"})
    assert "(x): CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS is not set" in without.detail
    assert trial.function_hooks(closed, None).detail == "; ".join(closed.values())


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_document_of_a_finding_has_hook_meaning_and_cost(signal: Signal) -> None:
    way = signal.ways[-1]
    taken = trial.Finding(signal, Choice(signal, way), EventCost(3, 70.26)).document()
    assert (taken["hook"], taken["event_ns"], taken["events"]) == (str(way), 70.3, 3)
    assert taken["detail"] is None
    absent = trial.Finding(signal, Choice(signal, None, "closed")).document()
    assert (absent["hook"], absent["meaning"], absent["detail"]) == (None, "absent", "closed")
    assert absent["without"] == signal.without


@pytest.mark.kernel
def test_examine_here_loads_every_program_and_measures_costs() -> None:
    hierarchy = memory_hierarchy()
    found = trial.examine(may_load=True, measure=True)
    checks = {check.name: check for check in found.checks}
    assert checks["BCC"].state is State.OK
    assert checks["programs"].state is State.OK, checks["programs"].detail
    assert "event costs" not in checks
    documents = {one["name"]: one for one in (finding.document() for finding in found.signals)}
    types = Btf.load()
    assert list(documents) == [
        signal.name
        for signal in needed(hierarchy.version)
        if not signal.only_with or types.function(signal.only_with) is not None
    ]
    assert all((one["event_ns"] or 0) > 0 for one in documents.values() if one["events"])
    assert all(one["event_ns"] is None for one in documents.values() if not one["events"])
    assert all(documents[name]["events"] for name in PROVOKED)
    assert list(hierarchy.mount.glob(f"{EPHEMERAL_PREFIX}*-doctor")) == []
