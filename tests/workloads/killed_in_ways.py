"""Processes that SIGKILL ends in each way: `killed_in_ways.py CGROUP [V2-CGROUP]` prints them as JSON.

The result maps the name of each process to [its pid, the pid of the sender, its wait status]; null: not known
here. V2-CGROUP is a cgroup of version 2 without processes. Each process waits for its end, and is reaped
before the next one starts. Its name is also its comm, cut to 15 bytes.

As the first process of a container, with "-" for CGROUP, it stays where it is, and the process `left` ends
with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

WAYS: Final = {
    "kill": "kill",
    "kill_after_sigterm": "kill",
    "tgkill": "kill",
    "itself": "kill",
    "group": "group",
    "pidfd": "pidfd",
    "timeout": "kill",
    "parent_death": "parent_death",
    "pid_namespace": "pid_namespace",
    "strict_seccomp": "seccomp",
    "cpu_time": "other",
    "cgroup_kill": "cgroup_kill",
    "left": "pid_namespace",
}
"""Process that SIGKILL ends -> its way."""
SENT_BY_NONE: Final = {"strict_seccomp", "cpu_time"}

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 15, 22, 38
_SECCOMP_STRICT, _SECCOMP_FILTER = 1, 2
_CLONE_NEWPID = 0x20000000
_TGKILL = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
OOM_BYTES = 96 << 20
_libc = ctypes.CDLL(None, use_errno=True)

Found = dict[str, tuple[int | None, int | None, int | None]]


def _forked(does: Callable[[int], object], name: str | None = None) -> tuple[int, int]:
    """Return the pid of a child that does something, with what it writes to its pipe: an own or another
    pid. Without a name, it has the parent's."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            if name is not None:
                _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
            does(write)
        finally:
            os._exit(1)
    os.close(write)
    told = os.read(read, 16)
    os.close(read)
    return pid, int(told or b"0")


def _waits(write: int) -> NoReturn:
    os.write(write, b"%d" % os.getpid())
    while True:
        signal.pause()


def _waits_in_group(write: int) -> None:
    os.setpgid(0, 0)
    _waits(write)


def _ended(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _after(does: Callable[[int], object], kills: Callable[[int], object], name: str) -> tuple[int, int, int]:
    pid, _ = _forked(does, name)
    kills(pid)
    return pid, os.getpid(), _ended(pid)


def _kill_twice(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _term_and_kill(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGKILL)


def _ignores_sigterm(write: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _waits(write)


def _tgkill(pid: int) -> None:
    _libc.syscall(_TGKILL, pid, pid, signal.SIGKILL)


def _pidfd_kill(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _parent_of_bound(write: int) -> None:
    """Start a child that SIGKILL ends with its parent, and end."""

    def is_bound(write_inner: int) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _waits(write_inner)

    pid, _ = _forked(is_bound)
    os.write(write, b"%d" % pid)
    os._exit(0)


def _maker_of_namespace(write: int) -> None:
    """Start the init of a new pid namespace, whose end ends another process there. Write the init's pid."""
    if _libc.unshare(_CLONE_NEWPID):
        os._exit(1)

    def is_init(_: int) -> None:
        _forked(_waits)
        os._exit(0)

    init, _told = _forked(is_init)
    os.waitpid(init, 0)
    os.write(write, b"%d" % init)
    os._exit(0)


def _calls_in_strict_mode(write: int) -> None:
    os.write(write, b"0")
    _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_STRICT, 0, 0, 0)
    os.getppid()


def _calls_behind_filter(write: int) -> None:
    """Call what a filter forbids with SECCOMP_RET_KILL_PROCESS: it ends by SIGSYS."""
    os.write(write, b"0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    instruction = (6).to_bytes(2, "little") + bytes(2) + (0x80000000).to_bytes(4, "little")  # BPF_RET
    code = ctypes.create_string_buffer(instruction, 8)
    program = ctypes.create_string_buffer(
        (1).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little"), 16
    )
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, ctypes.c_void_p(ctypes.addressof(program)), 0, 0)
    os.getppid()


def _has_no_cpu_time_left(write: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    os.write(write, b"0")
    while True:
        pass


def _fills_the_limit(write: int, gate: int) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")
    os.write(write, b"0")
    os.read(gate, 1)
    bytearray(OOM_BYTES)


def _ends_with_threads(write: int) -> None:
    for _ in range(3):
        threading.Thread(target=signal.pause, daemon=True).start()
    os.write(write, b"0")
    os._exit(0)


def _by_timeout() -> tuple[None, int, int]:
    command = ["timeout", "--foreground", "-s", "KILL", "0.05", "sleep", "1000"]
    timeout = subprocess.Popen(command)
    return None, timeout.pid, timeout.wait()


def _of_child(starts: Callable[[int], object], name: str) -> tuple[int, int]:
    """Return what a child tells, and the child, after its end."""
    pid, told = _forked(starts, name)
    _ended(pid)
    return told, pid


def _by_cgroup(v2: Path) -> tuple[int, int, int]:
    def enters(write: int) -> None:
        (v2 / "cgroup.procs").write_text("0")
        _waits(write)

    return _after(enters, lambda _: (v2 / "cgroup.kill").write_text("1"), "cgroup_kill")


_STEPS: Final[dict[str, tuple[Callable[[int], object], Callable[[int], object]]]] = {
    "kill": (_waits, _kill_twice),
    "kill_after_sigterm": (_ignores_sigterm, _term_and_kill),
    "tgkill": (_waits, _tgkill),
    "itself": (lambda _: os.kill(os.getpid(), signal.SIGKILL), lambda _: None),
    "group": (_waits_in_group, lambda pid: os.killpg(pid, signal.SIGKILL)),
    "pidfd": (_waits, _pidfd_kill),
    "strict_seccomp": (_calls_in_strict_mode, lambda _: None),
    "seccomp_filter": (_calls_behind_filter, lambda _: None),
    "cpu_time": (_has_no_cpu_time_left, lambda _: None),
    "threads": (_ends_with_threads, lambda _: None),
}
"""Name of a child -> what it does, and what then is done to it by its pid."""


def main(cgroup: str, v2: str | None = None) -> None:
    """Enter the cgroup, let each process be killed there, and print what is known of it."""
    is_in_container = cgroup == "-"
    if not is_in_container:
        (Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
    zombie, _ = _forked(lambda _: os._exit(0), "zombie")
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    os.kill(zombie, signal.SIGKILL)
    found: Found = {"zombie": (zombie, os.getpid(), _ended(zombie))}
    for name, (does, kills) in _STEPS.items():
        found[name] = _after(does, kills, name)
    found["timeout"] = _by_timeout()
    found["parent_death"] = (*_of_child(_parent_of_bound, "parent_death"), None)
    found["pid_namespace"] = (None, _of_child(_maker_of_namespace, "pid_namespace")[0], None)
    if v2 is not None:
        found["cgroup_kill"] = _by_cgroup(Path(v2))
    if is_in_container:
        found["left"] = (_forked(_waits, "left")[0], os.getpid(), None)
    # At last: the memory of an OOM victim may be held for a moment after its end, by who reads its /proc.
    gate, opens = os.pipe()
    victim, _ = _forked(lambda write: _fills_the_limit(write, gate), "oom")
    found |= {"oom": (victim, None, signal.SIGKILL), "self": (os.getpid(), os.getppid(), None)}
    print(json.dumps(found), flush=True)
    os.write(opens, b"1")
    assert _ended(victim) == signal.SIGKILL


if __name__ == "__main__":
    main(*sys.argv[1:])
