"""The words that mark the lines of an OOM report, from mm/oom_kill.c and mm/memcontrol.c.

A line without them needs no parser: a recorder sees many lines, and seldom a report.
"""

from __future__ import annotations

import re
from typing import Final

INVOKED: Final = "oom-killer: gfp_mask="
"""It follows the name of the task and ` invoked `; before v2.6.18, it begins the line."""

SUMMARY: Final = "oom-kill:constraint="
STATS: Final = "Memory cgroup stats for "
SYSTEM_OOM: Final = "System OOM encountered, victim process: "
KILLED: Final = "Killed process "
UB_KILLED: Final = ": OOM killed process "
"""The kernels of OpenVZ write it after `Out of memory in UB 101`, the container at its limit."""

CHOSEN: Final = "Kill process "
OLD_CHOSEN: Final = "kill process "  # before v2.6.36
LIMIT_OF: Final = " killed as a result of limit of "
REAPER: Final = "oom_reaper: "
NO_OOM: Final = (" page allocation failure", "Show Memory")
"""They announce the state of the machine without an OOM: a failed allocation, and SysRq+M."""

WARNED: Final = "warn_alloc"
"""The function that reports a failed allocation (mm/page_alloc.c), or the beginning of its name."""

BY_HAND: Final = "Manual OOM execution"  # SysRq+F (drivers/tty/sysrq.c)
GROUP: Final = " are going to be killed due to memory.oom.group set"

KILLED_PID: Final = re.compile(r" ?(\d{1,10}),? (?:UID (\d{1,10}), )?\(")
"""The pid, and on some kernels the uid, between `Killed process` or `Kill process` and the name."""

NO_PID: Final = re.compile(r" ?(?:[*#?xX_.…-]{1,12} ?|[<\[{][\w ./*-]{1,24}[>\]}] ?)?\(")
"""A space, or what users write in place of a pid, between these words and the name."""

_COMM_BYTES: Final = 15  # TASK_COMM_LEN less the NUL


def fits_comm(name: str) -> bool:
    """Return whether a name is short enough for a comm (TASK_COMM_LEN, include/linux/sched.h)."""
    if name.isascii():
        return len(name) <= _COMM_BYTES
    return len(name.encode("utf-8", "surrogateescape")) <= _COMM_BYTES


def has_victim(text: str) -> bool:
    """Return whether a line about a kill reaches the name of the killed task."""
    return any(KILLED_PID.match(text.partition(word)[2]) is not None for word in (KILLED, CHOSEN, OLD_CHOSEN))
