"""Another user of BPF, which writes to its own map endlessly, on one CPU.

Usage: bpf_user.py CPU. During a write to a map the kernel runs no program of a kprobe on that CPU
(bpf_disable_instrumentation in include/linux/bpf.h), and with full preemption another task may run
meanwhile. A value of 1 MiB makes the write long, and at low priority it is preempted often.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

from tracer.capture.bpf.syscall import create_map, update_element

_BPF_MAP_TYPE_ARRAY: Final = 2
_VALUE_BYTES: Final = 1 << 20


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.nice(10)
    map_fd = create_map(_BPF_MAP_TYPE_ARRAY, key_size=4, value_size=_VALUE_BYTES, entries=1)
    key, value = ctypes.c_uint32(0), (ctypes.c_char * _VALUE_BYTES)()
    print("writes", flush=True)
    while True:
        update_element(map_fd, key, value)


if __name__ == "__main__":
    main()
