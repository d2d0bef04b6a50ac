"""perf_event_open(2): kprobes without a name in tracefs, each for one program."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path
from typing import Final

from tracer.capture.bpf.syscall import machine, u32, u64

KPROBES: Final = Path("/sys/bus/event_source/devices/kprobe")
"""The kprobes of perf events (kernel/events/core.c); absent in a kernel without kprobes."""

_CLOEXEC: Final = 8  # PERF_FLAG_FD_CLOEXEC
_SET_BPF: Final = 0x40042408  # PERF_EVENT_IOC_SET_BPF
_ENABLE: Final = 0x2400  # PERF_EVENT_IOC_ENABLE
_libc = ctypes.CDLL(None, use_errno=True)


class _EventAttr(ctypes.Structure):
    """struct perf_event_attr (include/uapi/linux/perf_event.h) up to config2 (PERF_ATTR_SIZE_VER1)."""

    _fields_ = (
        *u32("type", "size"),
        *u64("config", "sample_period", "sample_type", "read_format", "flags"),
        *u32("wakeup_events", "bp_type"),
        *u64("kprobe_func", "probe_offset"),
    )


def attach_kprobe(program_fd: int, function: str, *, is_return: bool) -> int:
    """Attach a program to the entry of a kernel function, or to its return, on all CPUs. Raises OSError.

    It stays attached while the returned descriptor is open.
    """
    name = ctypes.create_string_buffer(function.encode())
    return_bit = int((KPROBES / "format/retprobe").read_text(encoding="ascii").strip().rpartition(":")[2])
    attr = _EventAttr(
        type=int((KPROBES / "type").read_text(encoding="ascii")),
        size=ctypes.sizeof(_EventAttr),
        config=is_return << return_bit,
        sample_period=1,
        wakeup_events=1,
        kprobe_func=ctypes.addressof(name),
    )
    event = int(_libc.syscall(machine().perf_number, ctypes.byref(attr), -1, 0, -1, _CLOEXEC))
    if event < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    try:
        fcntl.ioctl(event, _SET_BPF, program_fd)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event
