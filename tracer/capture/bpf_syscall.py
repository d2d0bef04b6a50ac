"""The one call of bpf(2) that BCC does not wrap: running a program of ours, now, on a CPU of our choice."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from typing import Final, NamedTuple

from tracer.errors import TracerError


class Machine(NamedTuple):
    """An architecture: how bpf/syscalls.h knows it, and the number that bpf(2) has there."""

    macro: str
    bpf_number: int


_MACHINES: Final = {
    "x86_64": Machine("TRACER_X86_64", 321),
    "aarch64": Machine("TRACER_ARM64", 280),
}
_BPF_MAP_CREATE: Final = 0
_BPF_MAP_TYPE_ARRAY: Final = 2
_BPF_PROG_TEST_RUN: Final = 10
_BPF_F_TEST_RUN_ON_CPU: Final = 1
_ARGS: Final = 12  # MAX_BPF_FUNC_ARGS, as bpf_prog_test_run_raw_tp() takes them


class _TestRunAttr(ctypes.Structure):
    """The `test` member of union bpf_attr (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def machine() -> Machine:
    """The architecture that we run on; TracerError for one that the programs do not know."""
    try:
        return _MACHINES[platform.machine()]
    except KeyError:
        raise TracerError(f"{platform.machine()} is not supported: use {' or '.join(_MACHINES)}") from None


def syscall_number() -> int:
    """bpf(2)'s number on this architecture."""
    return machine().bpf_number


class _MapCreateAttr(ctypes.Structure):
    """The begin of union bpf_attr's member for BPF_MAP_CREATE."""

    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def run_program(program_fd: int, args: Sequence[int] = (), cpu: int | None = None) -> int:
    """Run a raw-tracepoint program with `args` as its context and return its result.

    Without `cpu` it runs here, in the calling task; with one, there, in an interrupt that hits whatever runs.
    Raises OSError where the kernel refuses (ENXIO: the CPU is offline).
    """
    context = (ctypes.c_uint64 * _ARGS)(*args)
    attr = _TestRunAttr(
        prog_fd=program_fd,
        ctx_size_in=ctypes.sizeof(context),
        ctx_in=ctypes.addressof(context),
        flags=0 if cpu is None else _BPF_F_TEST_RUN_ON_CPU,
        cpu=cpu or 0,
    )
    _bpf(_BPF_PROG_TEST_RUN, attr)
    return int(attr.retval)


def create_array(value_size: int, entries: int) -> int:
    """A descriptor of a new array map, charged to our cgroup. Raises OSError."""
    return _bpf(
        _BPF_MAP_CREATE,
        _MapCreateAttr(map_type=_BPF_MAP_TYPE_ARRAY, key_size=4, value_size=value_size, max_entries=entries),
    )


def _bpf(command: int, attr: ctypes.Structure) -> int:
    result = int(_libc.syscall(syscall_number(), command, ctypes.byref(attr), ctypes.sizeof(attr)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf(2): {os.strerror(error)}")
    return result
