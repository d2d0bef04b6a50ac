"""The recorder's share of a busy CPU.

Records of BPF programs wait in rings, and are lost if the recorder is killed before it reads them. Under a
load of 30, a process of normal priority waits 50 ms and more for each 3 ms of CPU. The recorder needs little
CPU, so it gets a CPU at once (SCHED_RR). While it needs much, it shares the CPUs with others, with a lower
nice value: with the nice value of others it would not run for half a second and more.

Only the calling thread is raised. Its children, such as the compiler, and its threads start at normal
priority (SCHED_RESET_ON_FORK, sched(7)). A recorder that was started with a positive nice value keeps it.

Work whose time is measured needs the opposite: all of its processes get a CPU at once (`put_first`).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

_NICE: Final = -10  # nine times the weight of a process of normal priority (sched_prio_to_weight)
_BEST_NICE: Final = -20  # 87 times that weight
_WINDOW_S: Final = 1.0  # the time over which a share is measured: a start and single kills are bursts
_MOST_SHARE: Final = 0.5
_MODEST_SHARE: Final = 0.25


def prefer_this_thread() -> None:
    """Lower the nice value of the calling thread, if permitted, so that it gets more of a busy CPU."""
    with suppress(OSError):
        if 0 >= os.getpriority(os.PRIO_PROCESS, 0) > _NICE:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)  # on Linux, for the thread only


def put_first(pid: int) -> None:
    """Give a process of one thread, and all processes that it starts, real-time scheduling (SCHED_RR), if
    that is permitted.

    A process with a positive nice value keeps its scheduling.
    """
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, pid) <= 0:
            least = os.sched_get_priority_min(os.SCHED_RR)
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(least))


class HeadStart:
    """A lower nice value for a process of one thread (0: this thread) while it starts, until `end` or
    `__exit__`. The threads that a process has by then started have the value from before as well.

    A start takes 0.1 s of CPU for imports alone, which is 2 s under a load of 30. Only the nice value is
    changed, and it is restored: a command that is started after `end` has the value of the recorder's caller.
    With autogroups, sessions share the CPU, whatever the nice values in them (sched(7)). So a process that
    leads a session gives it the same value.
    """

    def __init__(self, pid: int = 0) -> None:
        self._pid = pid
        self._before: int | None = None
        self._session: tuple[Path, str] | None = None
        with suppress(OSError):
            before = os.getpriority(os.PRIO_PROCESS, pid)
            if 0 >= before > _NICE:
                os.setpriority(os.PRIO_PROCESS, pid, _NICE)
                self._before = before
                self._raise_session(pid or os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _raise_session(self, pid: int) -> None:
        group = Path(f"/proc/{pid}/autogroup")
        if os.getsid(pid) == pid and (shown := group.read_text("ascii").split()):  # "/autogroup-7 nice 0"
            group.write_text(str(_NICE), "ascii")
            self._session = group, shown[-1]

    def end(self) -> None:
        """Restore the nice value from before."""
        if self._before is not None:
            with suppress(OSError):  # it has ended: lowering the priority is always permitted
                tasks = Path(f"/proc/{self._pid}/task").iterdir() if self._pid else [Path("0")]
                for task in tasks:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), self._before)
            self._before = None
        if self._session is not None:
            group, before = self._session
            with suppress(OSError):
                group.write_text(before, "ascii")
            self._session = None


class Favour:
    """The best nice value for the calling thread, and for threads that it starts, while they use little CPU.

    They answer requests, and hold the interpreter lock meanwhile. Under a load of 20, an answer of 0.03 s of
    CPU came after 0.1 s with it, and after 1 s if only the answering thread had `prefer_this_thread`
    (medians). Without permission, or with a positive nice value, nothing is changed.
    """

    def __init__(self) -> None:
        self._before = os.getpriority(os.PRIO_PROCESS, 0)
        self._is_wanted = 0 >= self._before > _BEST_NICE
        self._seen = time.monotonic(), 0.0
        self._is_given = False
        self._give()

    def adjust(self, cpu_s: float) -> None:
        """Take the favour away if the threads used more than a quarter of a CPU for a second or more, until
        they use less. `cpu_s` is the CPU time that they have used so far."""
        now_s = time.monotonic()
        elapsed_s = now_s - self._seen[0]
        if elapsed_s < _WINDOW_S:
            return
        share = (cpu_s - self._seen[1]) / elapsed_s
        self._seen = now_s, cpu_s
        if self._is_given and share > _MODEST_SHARE:
            self._set(self._before)
            self._is_given = False
        elif not self._is_given and share < _MODEST_SHARE:
            self._give()

    def _give(self) -> None:
        if self._is_wanted:
            self._is_wanted = self._is_given = self._set(_BEST_NICE)

    def _set(self, nice: int) -> bool:
        """Set the nice value of this thread; return whether that is permitted."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)  # on Linux, for the thread only
            return True
        return False


class Priority(NamedTuple):
    """The scheduling of a thread: its policy (sched(7)), the policy's parameters, and the nice value."""

    policy: int
    parameters: os.sched_param
    nice: int

    @classmethod
    def of_this_thread(cls) -> Priority:
        return cls(os.sched_getscheduler(0), os.sched_getparam(0), os.getpriority(os.PRIO_PROCESS, 0))

    def give(self, thread_id: int = 0) -> None:
        """Schedule a thread (0: the calling one) like this, if permitted, but not what it starts."""
        with suppress(OSError):
            os.sched_setscheduler(thread_id, self.policy | os.SCHED_RESET_ON_FORK, self.parameters)
            os.setpriority(os.PRIO_PROCESS, thread_id, self.nice)  # on Linux, for the thread only


class Urgency:
    """Real-time scheduling of the calling thread until `close`, while it uses little CPU.

    The caller must call `adjust` regularly: it compares the share of a CPU used in a second or more with the
    bounds. The CPU time of a start, before `watch`, does not count. While much CPU is used, and if real-time
    scheduling is not permitted (without CAP_SYS_NICE, or in a cgroup without real-time runtime under
    CONFIG_RT_GROUP_SCHED), the thread has a lower nice value if possible.
    """

    def __init__(self) -> None:
        self.is_real_time = False
        self._before = Priority.of_this_thread()
        self._is_wanted = self._before.policy == os.SCHED_OTHER and self._before.nice <= 0
        self._seen = time.monotonic(), time.thread_time()
        self._raise()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self) -> None:
        """Begin to measure the share of a CPU."""
        self._seen = time.monotonic(), time.thread_time()

    def adjust(self) -> None:
        """Leave real-time scheduling above half of a CPU, and return to it below a quarter."""
        now_s = time.monotonic()
        elapsed_s = now_s - self._seen[0]
        if elapsed_s < _WINDOW_S:
            return
        cpu_s = time.thread_time()
        share = (cpu_s - self._seen[1]) / elapsed_s
        self._seen = now_s, cpu_s
        if self.is_real_time and share > _MOST_SHARE:
            self._restore()
            prefer_this_thread()
        elif not self.is_real_time and share < _MODEST_SHARE:
            self._raise()

    def close(self) -> None:
        """Restore the priority from before, for good."""
        self._is_wanted = False
        self._restore()

    def _raise(self) -> None:
        if not self._is_wanted:
            return
        try:
            least = os.sched_get_priority_min(os.SCHED_RR)
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(least))
        except OSError:
            self._is_wanted = False
            prefer_this_thread()
        else:
            self.is_real_time = True

    def _restore(self) -> None:
        self._before.give()
        self.is_real_time = False
