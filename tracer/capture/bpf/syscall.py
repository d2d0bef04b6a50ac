"""bpf(2): create, read and write maps; load, attach and run programs; measure their runs."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import cache
from typing import Any, Final, NamedTuple

from tracer.errors import TracerError


class Machine(NamedTuple):
    """An architecture: its macro in bpf/shared/syscalls.h, the numbers of bpf(2) and perf_event_open(2)."""

    macro: str
    bpf_number: int
    perf_number: int


_MACHINES: Final = {
    "x86_64": Machine("TRACER_X86_64", 321, 298),
    "aarch64": Machine("TRACER_ARM64", 280, 241),
}
_BPF_MAP_CREATE: Final = 0
_BPF_MAP_LOOKUP_ELEM: Final = 1
_BPF_MAP_UPDATE_ELEM: Final = 2
_BPF_MAP_DELETE_ELEM: Final = 3
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_TEST_RUN: Final = 10
_BPF_OBJ_GET_INFO_BY_FD: Final = 15
_BPF_RAW_TRACEPOINT_OPEN: Final = 17
_BPF_BTF_LOAD: Final = 18
_BPF_ENABLE_STATS: Final = 32
_BPF_F_TEST_RUN_ON_CPU: Final = 1
_BPF_STATS_RUN_TIME: Final = 0
_NAME_BYTES: Final = 16  # BPF_OBJ_NAME_LEN
_LOAD_TRIES: Final = 5  # a signal interrupts the verifier (EAGAIN from do_check in kernel/bpf/verifier.c)
TEST_RUN_ARGS: Final = 12
"""MAX_BPF_FUNC_ARGS: the limit of bpf_prog_test_run_raw_tp() in net/bpf/test_run.c."""

_ARGS: Final = struct.Struct(f"{TEST_RUN_ARGS}Q")
_NO_ARGS: Final = (0,) * TEST_RUN_ARGS


def u32(*names: str) -> Sequence[tuple[str, type[ctypes.c_uint32]]]:
    """Return members of a structure of the kernel: __u32."""
    return [(name, ctypes.c_uint32) for name in names]


def u64(*names: str) -> Sequence[tuple[str, type[ctypes.c_uint64]]]:
    """Return members of a structure of the kernel: __u64, or an address."""
    return [(name, ctypes.c_uint64) for name in names]


class _TestRunAttr(ctypes.Structure):
    """The `test` member of union bpf_attr (include/uapi/linux/bpf.h)."""

    _fields_ = (
        *u32("prog_fd", "retval", "data_size_in", "data_size_out"),
        *u64("data_in", "data_out"),
        *u32("repeat", "duration", "ctx_size_in", "ctx_size_out"),
        *u64("ctx_in", "ctx_out"),
        *u32("flags", "cpu", "batch_size"),
    )


def machine() -> Machine:
    """Return this machine's architecture. Raises TracerError if the programs do not support it."""
    try:
        return _MACHINES[platform.machine()]
    except KeyError:
        raise TracerError(f"{platform.machine()} is not supported: use {' or '.join(_MACHINES)}") from None


class _ProgLoadAttr(ctypes.Structure):
    """The member of union bpf_attr for BPF_PROG_LOAD, up to the last field that is used."""

    _fields_ = (
        *u32("prog_type", "insn_cnt"),
        *u64("insns", "license"),
        *u32("log_level", "log_size"),
        *u64("log_buf"),
        *u32("kern_version", "prog_flags"),
        ("prog_name", ctypes.c_char * _NAME_BYTES),
        *u32("prog_ifindex", "expected_attach_type", "prog_btf_fd", "func_info_rec_size"),
        *u64("func_info"),
        *u32("func_info_cnt", "line_info_rec_size"),
        *u64("line_info"),
        *u32("line_info_cnt", "attach_btf_id"),
    )


class _FunctionInfo(ctypes.Structure):
    """struct bpf_func_info."""

    _fields_ = (("insn_off", ctypes.c_uint32), ("type_id", ctypes.c_uint32))


class _BtfLoadAttr(ctypes.Structure):
    """The first fields of the member of union bpf_attr for BPF_BTF_LOAD."""

    _fields_ = (
        *u64("btf", "btf_log_buf"),
        *u32("btf_size"),
    )


class _RawTracepointAttr(ctypes.Structure):
    """The member of union bpf_attr for BPF_RAW_TRACEPOINT_OPEN; a tracing program needs no name."""

    _fields_ = (("name", ctypes.c_uint64), ("prog_fd", ctypes.c_uint32))


class _MapCreateAttr(ctypes.Structure):
    """The first fields of the member of union bpf_attr for BPF_MAP_CREATE."""

    _fields_ = (
        *u32("map_type", "key_size", "value_size", "max_entries", "map_flags", "inner_map_fd", "numa_node"),
        ("map_name", ctypes.c_char * _NAME_BYTES),
    )


class _ElementAttr(ctypes.Structure):
    """The member of union bpf_attr for an element of a map."""

    _fields_ = (
        *u32("map_fd"),
        *u64("key", "value", "flags"),
    )


class _MapInfo(ctypes.Structure):
    """The first fields of struct bpf_map_info."""

    _fields_ = (*u32("type", "id", "key_size", "value_size", "max_entries", "map_flags"),)


class _ObjectInfoAttr(ctypes.Structure):
    """The `info` member of union bpf_attr."""

    _fields_ = (("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64))


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info up to its counts of runs; the fields before them are not read."""

    _fields_ = (
        ("before_", ctypes.c_uint64 * 24),
        *u64("run_time_ns", "run_cnt", "recursion_misses"),
    )


class _EnableStatsAttr(ctypes.Structure):
    """The `enable_stats` member of union bpf_attr."""

    _fields_ = (("type", ctypes.c_uint32),)


class Runs(NamedTuple):
    """Number and total duration of a program's runs while statistics were enabled.

    `skipped` counts the events at which the kernel did not run it, at any time (bpf_prog_inc_misses_counter).
    """

    times: int
    total_ns: int
    skipped: int = 0


_libc = ctypes.CDLL(None, use_errno=True)


class Runnable:
    """A raw-tracepoint program that can be run with arguments, by one thread.

    The memory of the arguments is made once: some programs run hundreds of times a second.
    """

    def __init__(self, program_fd: int) -> None:
        self._context = (ctypes.c_uint64 * TEST_RUN_ARGS)()
        self._attr = _TestRunAttr(
            prog_fd=program_fd,
            ctx_size_in=ctypes.sizeof(self._context),
            ctx_in=ctypes.addressof(self._context),
        )

    def __call__(self, args: Sequence[int] = (), cpu: int | None = None) -> int:
        """Run the program with `args` as its context, and return its result.

        Without `cpu` it runs in the calling task. With `cpu` it runs on that CPU, in an interrupt of whatever
        runs there. If the caller runs on that CPU, it runs in the calling task with interrupts enabled
        (bpf_prog_test_run_raw_tp in net/bpf/test_run.c).
        Raises OSError if the kernel refuses (ENXIO: the CPU is offline).
        """
        _ARGS.pack_into(self._context, 0, *args, *_NO_ARGS[len(args) :])
        attr = self._attr
        attr.flags, attr.cpu = (0, 0) if cpu is None else (_BPF_F_TEST_RUN_ON_CPU, cpu)
        bpf(_BPF_PROG_TEST_RUN, attr)
        return int(attr.retval)


def create_map(
    kind: int, *, key_size: int, value_size: int, entries: int, flags: int = 0, inner: int = 0, name: str = ""
) -> int:
    """Create a map of a kind (enum bpf_map_type) and return its descriptor. Raises OSError.

    `inner` is a map of the kind that a map of maps holds. The memory is charged to the caller's cgroup.
    """
    return bpf(
        _BPF_MAP_CREATE,
        _MapCreateAttr(
            map_type=kind,
            key_size=key_size,
            value_size=value_size,
            max_entries=entries,
            map_flags=flags,
            inner_map_fd=inner,
            map_name=name.encode()[: _NAME_BYTES - 1],
        ),
    )


class MapSizes(NamedTuple):
    """Type and sizes of a map, as `create_map` takes them."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


def map_sizes(map_fd: int) -> MapSizes:
    """Return type and sizes of a map. Raises OSError."""
    info = _object_info(map_fd, _MapInfo())
    return MapSizes(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)


def lookup_element(map_fd: int, key: Any, value: Any) -> bool:
    """Read the value of `key` into `value`. Return False if the key is not in the map. Raises OSError."""
    return _is_there(_BPF_MAP_LOOKUP_ELEM, map_fd, key, value)


def lookup(map_fd: int, key: Any, value: Any) -> Callable[[], object]:
    """Return a function that reads the value of `key`, which must exist, into `value`. It raises OSError."""
    attr = _element_attr(map_fd, key, value)
    return lambda: bpf(_BPF_MAP_LOOKUP_ELEM, attr)


def update_element(map_fd: int, key: Any, value: Any) -> None:
    """Set the value of `key`, whether or not it is in the map. Raises OSError."""
    _element(_BPF_MAP_UPDATE_ELEM, map_fd, key, value)


def delete_element(map_fd: int, key: Any) -> bool:
    """Remove `key`. Return False if it was not in the map. Raises OSError."""
    return _is_there(_BPF_MAP_DELETE_ELEM, map_fd, key, None)


def _is_there(command: int, map_fd: int, key: Any, value: Any) -> bool:
    try:
        _element(command, map_fd, key, value)
    except FileNotFoundError:
        return False
    return True


def _element(command: int, map_fd: int, key: Any, value: Any) -> None:
    bpf(command, _element_attr(map_fd, key, value))


def _element_attr(map_fd: int, key: Any, value: Any) -> _ElementAttr:
    return _ElementAttr(
        map_fd=map_fd,
        key=ctypes.addressof(key),
        value=0 if value is None else ctypes.addressof(value),
    )


class ProgramType(IntEnum):
    """The values of enum bpf_prog_type that are used."""

    KPROBE = 2
    RAW_TRACEPOINT = 17
    TRACING = 26


RETURN_0: Final = bytes.fromhex("b7000000000000009500000000000000")
"""The instructions of the smallest program."""


class AttachType(IntEnum):
    """The values of enum bpf_attach_type of tracing programs; NONE for other programs."""

    NONE = 0
    TRACE_RAW_TP = 23
    TRACE_FENTRY = 24
    TRACE_FEXIT = 25


def load_program(
    instructions: bytes,
    kind: ProgramType,
    name: str,
    *,
    attach_type: AttachType = AttachType.NONE,
    target: int = 0,
    types: int = 0,
    functions: Sequence[tuple[int, int]] = (),
    log: ctypes.Array[ctypes.c_char] | None = None,
) -> int:
    """Load a program, and return its descriptor. Raises OSError if the kernel refuses.

    A tracing program needs `attach_type` and `target`, the BTF type id of a kernel function or of a
    tracepoint's typedef. A program with subprograms needs `types`, a descriptor of `load_types`, and
    `functions`: the first instruction and the type id of each function, the program itself first. `log`
    receives the verifier's log.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    information = (_FunctionInfo * len(functions))(*(_FunctionInfo(*one) for one in functions))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = _ProgLoadAttr(
        prog_type=kind,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
        log_level=0 if log is None else 1,
        log_size=0 if log is None else len(log),
        log_buf=0 if log is None else ctypes.addressof(log),
        prog_name=name.encode()[: _NAME_BYTES - 1],
        expected_attach_type=attach_type,
        prog_btf_fd=types,
        func_info_rec_size=ctypes.sizeof(_FunctionInfo),
        func_info=ctypes.addressof(information),
        func_info_cnt=len(functions),
        attach_btf_id=target,
    )
    for _ in range(_LOAD_TRIES - 1):
        with suppress(BlockingIOError):
            return bpf(_BPF_PROG_LOAD, attr)
    return bpf(_BPF_PROG_LOAD, attr)


def load_types(btf: bytes) -> int:
    """Load the types of programs, in the format of BTF, and return a descriptor. Raises OSError."""
    document = ctypes.create_string_buffer(btf, len(btf))
    return bpf(_BPF_BTF_LOAD, _BtfLoadAttr(btf=ctypes.addressof(document), btf_size=len(btf)))


def attach_program(program_fd: int) -> int:
    """Attach a tracing program to its tracepoint or function. Raises OSError.

    It stays attached while the returned descriptor is open.
    """
    return bpf(_BPF_RAW_TRACEPOINT_OPEN, _RawTracepointAttr(prog_fd=program_fd))


def enable_statistics() -> int:
    """Enable the kernel's measurement of all program runs while the returned descriptor is open.

    This needs CAP_SYS_ADMIN. Raises OSError if the kernel refuses.
    """
    return bpf(_BPF_ENABLE_STATS, _EnableStatsAttr(type=_BPF_STATS_RUN_TIME))


def program_runs(program_fd: int) -> Runs:
    """Return the measured runs of a program since it was loaded. Raises OSError."""
    info = _object_info(program_fd, _ProgramInfo())
    return Runs(int(info.run_cnt), int(info.run_time_ns), int(info.recursion_misses))


def _object_info(fd: int, info: Any) -> Any:
    attr = _ObjectInfoAttr(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    bpf(_BPF_OBJ_GET_INFO_BY_FD, attr)
    return info


@cache
def _bpf_number() -> int:
    return machine().bpf_number


def bpf(command: int, attr: ctypes.Structure) -> int:
    """Call bpf(2) with a member of union bpf_attr. Raises OSError."""
    result = int(_libc.syscall(_bpf_number(), command, ctypes.byref(attr), ctypes.sizeof(attr)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
