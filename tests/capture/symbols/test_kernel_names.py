"""Names in kernel stacks that the tracer's own programs took."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from tracer.capture.symbols.kernel_names import KernelNames, KernelSymbols, without_probes


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


def symbols(folder: Path, *lines: str) -> KernelSymbols:
    file = folder / "kallsyms"
    file.write_text("".join(f"{line}\n" for line in lines))
    return KernelSymbols(file)


def test_frames_of_an_unknown_address_are_bare_addresses(tmp_path: Path) -> None:
    table = symbols(tmp_path, "0000000000000100 T kill", "0000000000000200 t charge")
    names = KernelNames(lambda: table)
    assert names.frames([0x175, 0x20, 0x2C0]) == ["kill+0x75", "0x20", "charge+0xc0"]


def test_symbols_of_modules_and_of_data_keep_their_place(tmp_path: Path) -> None:
    """Modules come after the kernel, whatever their addresses are; data is between functions."""
    table = symbols(
        tmp_path,
        "ffffffff81000000 T first",
        "ffffffff81000080 d a_table",
        "ffffffff81000100 W last",
        "ffffffff80000000 t in_module\t[ext4]",
        "ffffffff90000000 t bpf_prog_1f_mark\t[bpf]",
    )
    found = [table.at(at) for at in (0xFFFFFFFF80000000, 0xFFFFFFFF81000090, 0xFFFFFFFF81000100, 2**64 - 1)]
    assert found[:3] == ["in_module+0x0", "first+0x90", "last+0x0"]
    assert str(found[3]).startswith("bpf_prog_1f_mark+0x")
    assert table.at(0x1000) is None


def test_table_with_hidden_addresses_names_nothing(tmp_path: Path) -> None:
    assert symbols(tmp_path, "0000000000000000 T kill").at(0xFFFFFFFF81000000) is None
    assert KernelSymbols(tmp_path / "absent").at(0xFFFFFFFF81000000) is None


def test_table_of_another_form_names_nothing(tmp_path: Path) -> None:
    for lines in (["c1000000 T kill", "c1000080 T charge"], [""], ["kill"]):
        assert symbols(tmp_path, *lines).at(0xFFFFFFFF81000000) is None


@pytest.mark.kernel
@pytest.mark.vm
def test_function_of_this_kernel_is_found() -> None:
    lines = Path("/proc/kallsyms").read_text().splitlines()
    address = next(int(line.split()[0], 16) for line in lines if line.split()[1:] == ["T", "out_of_memory"])
    assert KernelSymbols().at(address + 4) == "out_of_memory+0x4"


def test_many_symbols_have_their_names_and_take_little_memory(tmp_path: Path) -> None:
    lines = [f"{0xFFFFFFFF81000000 + 64 * n:x} t mem_cgroup_function_{n * 7919}" for n in range(20_000)]
    file = tmp_path / "kallsyms"
    file.write_text("".join(f"{line}\n" for line in reversed(lines)))
    KernelSymbols(file)
    tracemalloc.start()
    try:
        table = KernelSymbols(file)
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 20_000 * 25, "8 bytes of each are its address, 4 its place in the file"
    for n in (*range(0, 20_000, 97), 255, 256, 19_999):
        assert table.at(0xFFFFFFFF81000000 + 64 * n + 9) == f"mem_cgroup_function_{n * 7919}+0x9"
