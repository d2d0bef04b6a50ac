"""Become another program in given cgroups: `enter.py CPU USER PROCS... -- ARGV...`.

CPU is the CPU to run on, or empty for all; USER is a name, or empty for no change of user; PROCS are files
`cgroup.procs`. It imports nothing of the project.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

cpu, user, *rest = sys.argv[1:]
end = rest.index("--")
for procs in rest[:end]:
    Path(procs).write_text("0", "ascii")
if cpu:
    os.sched_setaffinity(0, {int(cpu)})
if user:
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
os.execvp(rest[end + 1], rest[end + 1 :])
