"""The choice of a way for each signal on synthetic kernels, and the program of every way."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tracer.capture.bpf.compiled.compiler import bpf_folder
from tracer.capture.bpf.hooks import FAMILIES, Choice, Offer, choose
from tracer.capture.bpf.load import watching
from tracer.kernel.btf import VMLINUX, Btf
from tracer.kernel.probes import SIGNALS, Hook, Kind, Signal, Way, needed
from tracer.wire.dtypes import WIRE

RAW = Way((Hook(Kind.TYPED_TRACEPOINT, "event", "event", "folio"),))
ENTRY = Way((Hook(Kind.FENTRY, "function", "enter", "mem_cgroup"),))
ENDS = Way((Hook(Kind.KPROBE, "function", "enter"), Hook(Kind.KRETPROBE, "function", "leave")))

HOOKS = [
    watching(hook) if signal.is_calibration else hook
    for signal in SIGNALS
    for way in signal.ways
    for hook in way.hooks
]
SOURCE = "\n".join(file.read_text() for file in bpf_folder().glob("*.bpf.c"))


class Types(Btf):
    """BTF of some tracepoints and functions, each with the types of its arguments."""

    def __init__(
        self, tracepoints: Mapping[str, tuple[str, ...]], functions: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.tracepoints, self.functions = tracepoints, functions

    def tracepoint_arguments(self, name: str) -> tuple[str, ...] | None:
        return self.tracepoints.get(name)

    def function_arguments(self, name: str) -> tuple[str, ...] | None:
        return self.functions.get(name)


class Kernel(Offer):
    """A kernel that has, by default, the tracepoint `event` and the function `function`."""

    def __init__(
        self,
        *,
        event: tuple[str, ...] | None = ("folio",),
        function: tuple[str, ...] | None = ("mem_cgroup",),
        symbols: bytes = b"ffffffff81000000 T function\n",
        closed: Mapping[str, str] | None = None,
    ) -> None:
        tracepoints = {} if event is None else {"event": event}
        functions = {} if function is None else {"function": function}
        super().__init__(Types(tracepoints, functions), closed or {})
        self.__dict__["_symbols"] = symbols  # in place of the cached property's value


@pytest.fixture
def signal(monkeypatch: pytest.MonkeyPatch) -> Signal:
    """Replace all signals by one with three ways."""
    only = Signal("s", "charge", (RAW, ENTRY, ENDS), "tells", "loses", required=True)
    monkeypatch.setattr("tracer.kernel.probes.SIGNALS", (only,))
    return only


def chosen(offer: Offer, **options: object) -> Choice:
    (choice,) = choose(offer, 1, **options)  # type: ignore[arg-type]
    return choice


@pytest.mark.usefixtures("signal")
def test_choose_takes_the_first_available_way() -> None:
    assert chosen(Kernel()).way is RAW
    assert chosen(Kernel(event=None)).way is ENTRY
    assert chosen(Kernel(event=None, closed={"fentry": "closed"})).way is ENDS


@pytest.mark.usefixtures("signal")
def test_document_of_a_choice_has_hook_and_meaning() -> None:
    assert chosen(Kernel()).document() == {"hook": "typed_tracepoint event", "meaning": "exact", "detail": ""}


@pytest.mark.usefixtures("signal")
def test_choose_passes_over_a_hook_with_other_arguments() -> None:
    assert chosen(Kernel(event=("page",))).way is ENTRY
    assert chosen(Kernel(event=())).way is ENTRY
    assert Kernel(event=("page",)).why_not(RAW.hooks[0]) == "the tracepoint event is of another form here"
    assert chosen(Kernel(event=None, function=("lruvec",))).way is ENDS, (
        "the program of this hook reads no argument"
    )


def test_why_not_of_an_inlined_function_gives_the_reason() -> None:
    inlined = Kernel(symbols=b"ffffffff81000000 T function_of_another\nffffffff81000000 T my_function\n")
    assert inlined.why_not(ENDS.hooks[0]) == "the function function is inlined in this kernel"
    assert Kernel().why_not(ENDS.hooks[0]) is None


@pytest.mark.usefixtures("signal")
def test_choose_with_a_forced_family_takes_its_way_or_none() -> None:
    assert chosen(Kernel(), forced="kprobe").way is ENDS
    assert chosen(Kernel(), forced="fentry").way is ENTRY
    closed = chosen(Kernel(closed={"kprobe": "no kprobes"}), forced="kprobe")
    assert (closed.way, closed.why_not) == (None, "no kprobes"), "no other family takes its place"


def test_choose_with_a_forced_family_keeps_signals_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.kernel.probes.SIGNALS", (Signal("s", "charge", (RAW,), "tells", "loses"),))
    assert chosen(Kernel(), forced="kprobe").way is RAW


def test_choose_leaves_out_a_signal_that_the_kernel_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    only = Signal("s", "charge", (RAW,), "tells", "loses", only_with="function")
    monkeypatch.setattr("tracer.kernel.probes.SIGNALS", (only,))
    assert chosen(Kernel()).signal is only
    assert choose(Kernel(function=None), 1) == []


@pytest.mark.usefixtures("signal")
def test_choose_passes_over_a_refused_way() -> None:
    assert chosen(Kernel(), refused={RAW: "the verifier says no"}).way is ENTRY
    every = dict.fromkeys((RAW, ENTRY, ENDS), "the verifier says no")
    assert chosen(Kernel(), refused=every).why_not == "the verifier says no", "each reason is given once"


def test_choice_without_a_way_gives_the_reason_of_each(signal: Signal) -> None:
    choice = chosen(Kernel(event=None, function=None, closed={"kprobe": "no kprobes"}))
    assert (choice.signal, choice.way, choice.meaning) == (signal, None, "absent")
    assert (
        choice.why_not
        == "this kernel has no tracepoint event; this kernel has no function function; no kprobes"
    )
    assert choice.document()["hook"] is None
    assert str(choice.document()["detail"]).endswith(": loses")


def test_signals_needed_on_v1_only_are_the_listed_ones() -> None:
    assert {signal.name for signal in needed(1)} - {signal.name for signal in needed(2)} == {
        "soft-limit reclaim",
        "cgroup renamed",
    }


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: f"{hook.kind}-{hook.target}-{hook.function}")
def test_hook_has_its_function_in_the_sources(hook: Hook) -> None:
    function = re.escape(hook.function)
    if hook.kind is Kind.TYPED_TRACEPOINT:
        assert re.search(rf"^PROGRAM\({function}\)", SOURCE, flags=re.MULTILINE)
    else:
        assert re.search(rf"\b{function}\(struct call \*", SOURCE)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_signal_states_its_meaning_and_the_cost_of_its_absence(signal: Signal) -> None:
    assert signal.stream in WIRE
    assert signal.ways
    assert signal.meaning and signal.without
    assert all(len({hook.kind.family for hook in way.hooks}) == 1 for way in signal.ways)


def test_names_of_signals_are_unique() -> None:
    assert len({signal.name for signal in SIGNALS}) == len(SIGNALS)
    assert FAMILIES == ("typed_tracepoint", "fentry", "kprobe")


@pytest.mark.kernel
@pytest.mark.vm
def test_running_kernel_offers_every_required_signal() -> None:
    choices = choose(Offer.look(Btf.load(VMLINUX)), 1)
    assert [choice.why_not for choice in choices if choice.signal.required and choice.way is None] == []
