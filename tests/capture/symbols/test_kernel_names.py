"""Names in kernel stacks that the tracer's own programs took."""

from __future__ import annotations

import pytest

from tracer.capture.symbols.kernel_names import KernelNames, without_probes


@pytest.mark.parametrize(
    "taken",
    [
        "bpf_prog_1f_mark+0x9 bpf_trace_run2+0x8e __traceiter_mark+0x3 kill+0x75 out+0x217 charge+0xc0",
        "kill+0x75 out+0x217 bpf_trampoline_6442552478+0x76 charge+0xc0",
        "kill+0x75 out+0x219 bpf_trampoline_6442540474+0x71 out+0x9 charge+0xc0",
        "bpf_prog_2a_f+0x1 bpf_trampoline_1+0x5 kill+0x75 out+0x1 bpf_trampoline_2+0x7 out+0x9 charge+0xc0",
    ],
)
def test_without_probes_removes_frames_of_the_tracers_programs(taken: str) -> None:
    """The stacks are those of fexit programs on out_of_memory(), seen on 6.18 and 7.3."""
    assert [frame.partition("+")[0] for frame in without_probes(taken.split())] == ["kill", "out", "charge"]


def test_without_probes_keeps_a_recursive_call() -> None:
    assert without_probes(["walk+0x8", "walk+0x8", "main+0x1"]) == ["walk+0x8", "walk+0x8", "main+0x1"]


def test_frames_of_an_unknown_address_are_bare_addresses() -> None:
    names = KernelNames({0x10: "kill+0x75", 0x30: "charge+0xc0"}.get)
    assert names.frames([0x10, 0x20, 0x30]) == ["kill+0x75", "0x20", "charge+0xc0"]
