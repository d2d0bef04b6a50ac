"""The cost of `watch`: what it adds up, and what it says when the kernel refuses to measure."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Final

import pytest

from tracer.watch import cost
from tracer.watch.cost import WINDOW_S, Cost

MS = 1_000_000


class Machine:
    """Clocks that stand, a counter of the programs, and a kernel that measures while a descriptor is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.cpu_s, self.programs_ns = 100.0, 3.0, 0
        self.opened: list[int] = []
        self.refusal: OSError | None = None
        clocks = SimpleNamespace(monotonic=lambda: self.now_s, process_time=lambda: self.cpu_s)
        monkeypatch.setattr(cost, "time", clocks)
        monkeypatch.setattr(cost, "enable_statistics", self.enable)

    def enable(self) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        return self.opened[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_programs_are_measured_in_windows_only(machine: Machine) -> None:
    spent = Cost(lambda: machine.programs_ns)
    machine.programs_ns = 500 * MS  # before the window
    spent.open_window()
    spent.open_window()
    assert len(machine.opened) == 1
    machine.now_s += WINDOW_S / 2
    machine.programs_ns += 5 * MS
    spent.close_window()
    assert spent.is_measuring
    machine.now_s += WINDOW_S / 2
    spent.close_window()
    assert not spent.is_measuring
    assert not is_open(machine.opened[0])
    machine.now_s += 9.5
    machine.cpu_s += 0.2
    machine.programs_ns += 500 * MS
    described = spent.describe()
    assert described["programs_cpu_percent"] == pytest.approx(100 * 0.005 / WINDOW_S)
    assert described["programs_measured_s"] == WINDOW_S
    assert described["recorder_cpu_percent"] == pytest.approx(100 * 0.2 / 10)
    assert "programs_not_measured" not in described
    assert spent.sentence() == (
        f"cost: 2.00 % of a CPU, programs 1.00 % while measured (0.5 s), "
        f"{described['resident_bytes'] >> 20} MiB resident"
    )


def test_windows_add_up(machine: Machine) -> None:
    spent = Cost(lambda: machine.programs_ns)
    for run_ms in (5, 15):
        spent.open_window()
        machine.now_s += WINDOW_S
        machine.programs_ns += run_ms * MS
        spent.close_window()
    assert spent.describe()["programs_cpu_percent"] == pytest.approx(100 * 0.02 / (2 * WINDOW_S))


def test_cost_before_anything_was_measured_is_not_known(machine: Machine) -> None:
    spent = Cost(lambda: machine.programs_ns)
    spent.close_window()
    assert spent.describe()["programs_cpu_percent"] is None
    assert "programs not measured (nothing has happened yet)" in spent.sentence()


def test_refusal_of_the_kernel_is_said_and_not_asked_for_again(machine: Machine) -> None:
    machine.refusal = PermissionError(1, "Operation not permitted")
    spent = Cost(lambda: machine.programs_ns)
    spent.open_window()
    machine.refusal = None
    spent.open_window()
    assert (machine.opened, spent.is_measuring) == ([], False)
    assert spent.describe()["programs_not_measured"] == "Operation not permitted"
    assert "programs not measured (Operation not permitted)" in spent.sentence()


DROPS: Final = """
import pyarrow as pa
from pathlib import Path
from tracer.watch import cost
def of_files_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0])
def works():
    table = pa.table({"x": pa.array(range(1000), pa.int64())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all().equals(table)
assert works()
before = of_files_kib()
cost.drop_code()
print(before, of_files_kib())
cost.drop_code()
assert works()
"""


def test_dropping_code_gives_back_most_of_the_libraries_and_they_still_work() -> None:
    done = subprocess.run([sys.executable, "-c", DROPS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after < before / 3


def test_resident_memory_is_that_of_the_process() -> None:
    """In a process of its own: this one may have as much memory that is free and resident."""
    script = (
        "from tracer.watch.cost import resident_bytes\n"
        "before = resident_bytes()\n"
        "held = bytearray(b'x') * (64 << 20)\n"
        "print(resident_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert abs(int(done.stdout) - (64 << 20)) < 4 << 20


def test_cyclic_garbage_of_a_long_run_is_collected() -> None:
    """The command line collects nearly none (`tracer.cli`)."""
    program = (
        "import gc, weakref\n"
        "from tracer.watch.cost import collect_cycles\n"
        "class Node: pass\n"
        "gc.set_threshold(300_000)\n"
        "collect_cycles()\n"
        "first = Node()\n"
        "first.itself, dead = first, weakref.ref(first)\n"
        "del first\n"
        "kept = [[] for _ in range(200_000)]\n"
        "print(dead() is None, gc.get_freeze_count() > 1000)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout == "True True\n"
