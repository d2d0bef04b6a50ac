"""The loader: ways that the kernel refuses, and kernels and machines that are unfit."""

from __future__ import annotations

import mmap
import os
import platform
from concurrent.futures import Future
from contextlib import closing
from types import SimpleNamespace

import pytest

from tracer.capture.bpf import load
from tracer.capture.bpf.attach import Attacher
from tracer.capture.bpf.hooks import Offer, choose
from tracer.capture.bpf.load import ACCOUNTS, Programs
from tracer.capture.bpf.syscall import machine
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.probes import Hook, Kind
from tracer.wire.streams import RING_BYTES


@pytest.mark.kernel
@pytest.mark.beside
@pytest.mark.vm_once
def test_way_that_the_kernel_refuses_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is not required, and may have another way or none."""
    load_one, warnings = Attacher.load, list[str]()

    def refuse(self: Attacher, hook: Hook) -> int:
        if hook.kind is Kind.TYPED_TRACEPOINT and hook.target == "mm_shrink_slab_start":
            raise TracerError("the kernel refuses the BPF program mm_shrink_slab_start: today")
        return load_one(self, hook)

    monkeypatch.setattr(Attacher, "load", refuse)
    version = memory_hierarchy().version
    before = {choice.signal.name: choice.way for choice in choose(Offer.look(Btf.load()), version)}
    with closing(Programs(version=version, stacks_bytes=1 << 20)) as programs:
        programs.wait(warnings.append)
        programs.attach(warnings.append)
        after = {choice.signal.name: choice.way for choice in programs.choices}
    assert before.pop("slab shrunk") is not None
    assert after.pop("slab shrunk") is None
    assert after == before
    assert warnings == [
        "the kernel refuses the BPF program mm_shrink_slab_start: today: "
        "going on without typed_tracepoint mm_shrink_slab_start + typed_tracepoint mm_shrink_slab_end"
    ]


def test_sizes_need_no_compilation_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Programs, "_begin_compiling", lambda _: None)
    usual = Programs(version=2, stacks_bytes=1 << 20)
    other = Programs(version=2, stacks_bytes=5 << 33, ring_pages={"charge": 4})
    assert (other._asked, other._flags()) == (usual._asked, usual._flags())
    settings = other._settings()
    assert settings.keys() == usual._settings().keys()
    assert settings["stacks_bytes"] == 5 << 33
    assert settings["charge_ring_bytes"] == other.ring_bytes("charge") == 4 * mmap.PAGESIZE
    assert settings["pagecache_ring_bytes"] == usual.ring_bytes("pagecache") == RING_BYTES["pagecache"]


@pytest.mark.parametrize(
    ("cpus", "memory_gib", "cgroups", "accounts"),
    [
        (2, 4, 0, ACCOUNTS),
        (2, 4, 2048, 4096),
        (2, 4, 2049, 5120),
        (64, 256, 6000, 12288),
        (64, 256, 1_000_000, 160_768),
        (256, 16, 6000, ACCOUNTS),
    ],
)
def test_ledger_has_room_for_twice_the_cgroups_in_a_part_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, cpus: int, memory_gib: int, cgroups: int, accounts: int
) -> None:
    """Removed cgroups that hold memory may be counted on v1, so there is a bound."""
    monkeypatch.setattr(load, "_possible_cpus", lambda: cpus)
    monkeypatch.setattr(os, "sysconf", lambda _: (memory_gib << 30) // mmap.PAGESIZE)
    assert load.accounts_for(cgroups) == accounts


class TypesBeforeFolios(Btf):
    """The BTF of a kernel with a memory controller and no folios."""

    def __init__(self) -> None:
        pass

    def struct(self, name: str) -> int | None:
        return 1 if name == "mem_cgroup" else None


def test_kernel_without_folios_is_refused_before_compiling() -> None:
    """The composition takes place in the child that compiles."""
    uncomposed = Programs.__new__(Programs)
    with pytest.raises(TracerError, match=r"no struct folio.*; see memcg-tracer doctor"):
        uncomposed._compose(TypesBeforeFolios(), {})


@pytest.mark.parametrize("is_cached", [True, False])
def test_compilation_is_announced_and_a_cached_unit_is_not(is_cached: bool) -> None:
    """The first start of a machine may take a minute if it is busy."""
    loaded = Future[None]()
    loaded.set_result(None)
    programs = Programs.__new__(Programs)
    programs.__dict__.update(_compilation=SimpleNamespace(is_cached=is_cached), _loading=loaded)
    lines: list[str] = []
    programs.wait(lines.append, lines.append)
    assert ["compiling the BPF programs" in line for line in lines] == [True] * (not is_cached)


def test_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(TracerError, match="riscv64 is not supported: use x86_64 or aarch64"):
        machine()
