"""What the verifier has to follow, and the stacks of programs with their subprograms, on any kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tracer.capture.bpf import attach
from tracer.capture.bpf.compiled.cache import Cache
from tracer.capture.bpf.compiled.compiler import Compilation
from tracer.capture.bpf.compiled.object_file import ObjectFile
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.syscall import load_program
from tracer.kernel import struct_header
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

MOST_INSTRUCTIONS: Final = 30_000
"""That the verifier follows of one program. 45,000 of `sched_switch` took it 90 ms."""

MOST_STACK_BYTES: Final = 512  # MAX_BPF_STACK
FRAME_BYTES: Final = 32  # check_max_stack_depth() of v6.1 rounds a frame up to it


def verified_instructions(fd: int) -> int:
    """Return the instructions that the verifier followed (bpf_prog_show_fdinfo in kernel/bpf/syscall.c)."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("verified_insns:"))


@pytest.mark.vm_once
def test_verifier_follows_few_instructions_of_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = dict[str, int]()

    def load(instructions: bytes, kind: Any, name: str, **rest: Any) -> int:
        fd = load_program(instructions, kind, name, **rest)
        followed[f"{name} of {len(instructions)} bytes"] = verified_instructions(fd)
        return fd

    monkeypatch.setattr(attach, "load_program", load)
    with closing(Programs(version=memory_hierarchy().version)) as programs:
        programs.wait(pytest.fail)
    assert len(followed) > 30
    assert {name: count for name, count in followed.items() if count > MOST_INSTRUCTIONS} == {}


def stack_offsets(instructions: bytes) -> Iterator[int]:
    """Yield the offsets from the frame pointer (r10) that a function uses."""
    copies = set[int]()  # the registers that hold the frame pointer
    wide = False
    for opcode, registers, offset, immediate in struct.iter_unpack("<BBhi", instructions):
        if wide:
            wide = False
            continue
        wide = opcode == 0x18
        into, source = registers & 15, registers >> 4
        if (opcode & 7 == 1 and source == 10) or (opcode & 7 in (2, 3) and into == 10):
            yield offset
        elif opcode == 0x07 and into in copies:
            yield immediate
        copies -= {into}
        if opcode == 0xBF and source == 10:
            copies |= {into}


def deepest_stack(object_file: ObjectFile, name: str) -> int:
    """Return the bytes of the frames of a function and of the deepest chain of calls below it."""
    code = object_file.programs[name]
    frame = max((-offset for offset in stack_offsets(code.instructions)), default=1)
    below = (deepest_stack(object_file, called) for _, called in code.calls)
    return -(-frame // FRAME_BYTES) * FRAME_BYTES + max(below, default=0)


@pytest.mark.parametrize(("version", "can_cast"), [(1, True), (2, False)])
def test_stacks_of_all_chains_of_calls_are_within_the_limit(
    monkeypatch: pytest.MonkeyPatch, version: int, can_cast: bool, pytestconfig: pytest.Config
) -> None:
    """The kernel that runs the test may allow more (private stacks, since v6.13)."""
    monkeypatch.setattr(Programs, "_begin_compiling", lambda _: None)
    if not can_cast:
        monkeypatch.setattr(struct_header, "_cast", lambda _: [])
    programs = Programs(version=version, stacks_bytes=1 << 20)
    cache, asked = Cache(Path(pytestconfig.cache.mkdir("bpf"))), (*programs._asked, can_cast)
    object_file = Compilation(programs._compose, asked, cache).result().object_file
    stacks = map(partial(deepest_stack, object_file), object_file.programs)
    depths = dict(zip(object_file.programs, stacks, strict=True))
    assert depths["sched_switch"] > depths["see_changed_inode"] > FRAME_BYTES
    assert {name: depth for name, depth in depths.items() if depth > MOST_STACK_BYTES} == {}
