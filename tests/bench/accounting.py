"""What a process and its descendants use: processor time, memory, runs of their BPF programs."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tracer.capture.bpf.syscall import machine

_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_BPF_PROG_GET_FD_BY_ID: Final = 13
_BPF_OBJ_GET_INFO_BY_FD: Final = 15
_NAME_AT: Final = 64  # of `name` in struct bpf_prog_info (include/uapi/linux/bpf.h)
_INFO_BYTES: Final = 80


def tree(pid: int) -> list[int]:
    """Return a process and its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat(path)[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _stat(path: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain anything: state, ppid, ..."""
    return path.read_text("utf-8", "replace").rpartition(")")[2].split()


def processor_s(pid: int) -> float:
    """Return the processor time of a process, of its descendants, and of ended children.

    That of the living is as exact as the scheduler's (the clock of a process, clock_getcpuclockid(3)). That
    of ended ones, which their parent waited for, is a multiple of a tick.
    """
    used = 0.0
    for one in tree(pid):
        with suppress(OSError):
            used += time.clock_gettime((~one << 3) | _CPUCLOCK_SCHED)
            fields = _stat(Path(f"/proc/{one}/stat"))
            used += (int(fields[13]) + int(fields[14])) / _TICKS  # cutime and cstime
    return used


@dataclass(frozen=True)
class Memory:
    """Memory of a process tree in KiB: the peak of what its processes mapped, and its BPF maps.

    A child of the recorder is a fork: what it shares is not counted a second time. A ring that is mapped is
    in both: its pages count as resident once for each mapping of them, and a ring is mapped twice in a row.
    `mapped_kib` is that part of `peak_kib`.
    """

    peak_kib: int
    mapped_kib: int
    maps_kib: int

    @property
    def total_mib(self) -> float:
        """The peak with each ring and map once."""
        return (self.peak_kib - self.mapped_kib + self.maps_kib) / 1024


def memory(pid: int) -> Memory:
    """Return the memory of a process and of its descendants that are alive."""
    peak, mapped = peak_kib(pid), 0
    sizes: dict[str, int] = {}
    for one in tree(pid):
        with suppress(OSError):
            if one == pid:
                mapped = mapped_kib(Path(f"/proc/{one}/smaps").read_text("utf-8", "replace"))
            else:
                rollup = Path(f"/proc/{one}/smaps_rollup").read_text("utf-8", "replace")
                peak += peak_kib(one) - shared_kib(rollup)
            for described in _descriptors(one):
                if "map_id" in described and "memlock" in described:
                    sizes[described["map_id"]] = int(described["memlock"])
    return Memory(peak, mapped, sum(sizes.values()) // 1024)


def peak_kib(pid: int) -> int:
    """Return the greatest resident size that a process has had; 0 if it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
        return sum(map(int, re.findall(r"^VmHWM:\s+(\d+)", status, flags=re.MULTILINE)))
    return 0


def shared_kib(rollup: str) -> int:
    """Return the resident size that other processes have mapped as well, by a smaps_rollup file
    (proc_pid_smaps(5))."""
    return sum(map(int, re.findall(r"^Shared_(?:Clean|Dirty):\s+(\d+)", rollup, flags=re.MULTILINE)))


def mapped_kib(smaps: str) -> int:
    """Return the resident size of mappings of BPF maps in a smaps file."""
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)
    of_maps = "".join(part for part in parts if "bpf" in part.partition("\n")[0])
    return sum(map(int, re.findall(r"^Rss:\s+(\d+)", of_maps, flags=re.MULTILINE)))


def _descriptors(pid: int) -> Iterator[dict[str, str]]:
    """Yield the fields of each descriptor's fdinfo (bpf_map_show_fdinfo() in kernel/bpf/syscall.c)."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            yield dict(re.findall(r"^(\w+):\s+(\S+)", path.read_text("utf-8", "replace"), flags=re.MULTILINE))


@dataclass(frozen=True)
class Runs:
    """Runs of a program since it was loaded, while the kernel measured programs."""

    name: str
    times: int
    total_ns: int


def program_runs(pid: int) -> dict[str, Runs]:
    """Return program id -> its runs, for the programs that a process or its descendants hold."""
    found: dict[str, Runs] = {}
    for one in tree(pid):
        with suppress(OSError):
            for described in _descriptors(one):
                if "prog_id" in described and "run_cnt" in described:
                    number = described["prog_id"]
                    counts = int(described["run_cnt"]), int(described["run_time_ns"])
                    found[number] = Runs(_program_name(int(number)), *counts)
    return found


class _IdAttr(ctypes.Structure):
    """The member of union bpf_attr for BPF_PROG_GET_FD_BY_ID."""

    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


class _InfoAttr(ctypes.Structure):
    """The `info` member of union bpf_attr."""

    _fields_ = (("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64))


def _program_name(program_id: int) -> str:
    """Return the name that a program was loaded with; its id if the kernel does not give it."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    program = _bpf(_BPF_PROG_GET_FD_BY_ID, _IdAttr(id=program_id))
    if program < 0:
        return str(program_id)
    try:
        _bpf(_BPF_OBJ_GET_INFO_BY_FD, _InfoAttr(program, _INFO_BYTES, ctypes.addressof(info)))
        return info.raw[_NAME_AT : _NAME_AT + 16].rstrip(b"\0").decode("ascii", "replace") or str(program_id)
    finally:
        os.close(program)


def _bpf(command: int, attr: Any) -> int:
    number = machine().bpf_number
    return int(ctypes.CDLL(None).syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr)))
