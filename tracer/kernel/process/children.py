"""Children of the tracer: a function of ours in a fork, or a module or script of ours in a new interpreter.

This is the only way to start Python. Root's working directory may belong to anybody, and have a `tracer/` or
a `json.py` in it, so no child looks for modules there.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import tracer
from tracer.errors import TracerError
from tracer.kernel.process.priority import prefer_this_thread

_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
_PR_SET_THP_DISABLE: Final = 41
_PR_GET_THP_DISABLE: Final = 42
_TOP: Final = Path(tracer.__file__).parents[1]
_NICE: Final = 10
_OOM_SCORE_ADJ: Final = 500  # the protection of `watch` must not protect its children
_KILLED_WITHIN_S: Final = 0.2  # usually: it may have BPF programs attached
_ending: Final[list[int]] = []
"""Children whose exit status is not collected yet."""
_ending_lock: Final = threading.Lock()

_libc = ctypes.CDLL(None)


def keep_pages_small() -> None:
    """Use only small pages for new memory of this process and of its children (prctl(2)), if possible.

    If the kernel uses huge pages for all memory, as Debian's does, Python's arenas take 6 MiB more than they
    use.
    """
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


@contextmanager
def huge_pages_for_children() -> Iterator[None]:
    """Start processes that may have huge pages, whatever this one has."""
    before = _libc.prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0)
    _libc.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_THP_DISABLE, int(before == 1), 0, 0, 0)


def end_with_parent() -> None:
    """Kill the calling process when its parent ends, and ignore the signals for its parent until then.

    Ctrl-C reaches a terminal's whole foreground group; only the parent decides when its child ends. A forked
    child has the parent's handlers, and its number of the descriptor to which the interpreter writes signals.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forked(work: Callable[[], object]) -> int:
    """Do some work in a child, and return its pid; its exit status is 1 if the work raises an error."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def end_child(child: int, connection: socket.socket, *, is_idle: bool) -> None:
    """Close the SOCK_SEQPACKET connection to a child that serves requests, and let the child end.

    An idle child ends at an empty request, and nobody waits for that. Another one is killed: a recorder
    reports every SIGKILL, also its own. A file system or a busy machine may delay the end; then
    `collect_ended` collects the exit status.
    """
    if is_idle:
        with suppress(OSError):  # it has ended
            connection.send(b"")
    else:
        os.kill(child, signal.SIGKILL)
    connection.close()
    until_s = time.monotonic() + (0 if is_idle else _KILLED_WITHIN_S)
    while is_there := _is_there(child):
        if time.monotonic() >= until_s:
            break
        time.sleep(0.001)
    if is_there:
        with _ending_lock:
            _ending.append(child)


def collect_ended() -> None:
    """Collect the exit status of children that have ended by now: until then, each is a zombie."""
    with _ending_lock:
        _ending[:] = [one for one in _ending if _is_there(one)]


def has_uncollected() -> bool:
    """Return whether there is a child for `collect_ended`, now or once it has ended."""
    return bool(_ending)


def _is_there(child: int) -> bool:
    """Return whether a child has not ended; if it has, collect its exit status."""
    try:
        return os.waitpid(child, os.WNOHANG) == (0, 0)
    except ChildProcessError:  # a child of the process that forked this one
        return False


def call_in_child(function: Callable[[], Any]) -> Any:
    """Call a function in a child, and return its result, a JSON document. The memory of the call is freed
    with the child.

    Raises TracerError if the function does, or if the child ends without an answer.
    """
    reader, writer = os.pipe()

    def work() -> None:
        end_with_parent()
        prefer_this_thread()  # the parent waits, maybe with a higher priority that its child lacks
        try:
            answer: dict[str, Any] = {"returned": function()}
        except TracerError as error:
            answer = {"raised": str(error)}
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream)

    child = forked(work)
    os.close(writer)
    with os.fdopen(reader) as stream:
        document = stream.read()
    os.waitpid(child, 0)
    try:
        answer = json.loads(document)
    except ValueError:
        raise TracerError("a child process of the tracer ended without an answer") from None
    if "raised" in answer:
        raise TracerError(answer["raised"])
    return answer["returned"]


def argv_of_module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours, whatever the working directory contains.

    Without `-P`, Python looks for every module there first (https://docs.python.org/3/using/cmdline.html).
    """
    return (sys.executable, "-P", "-m", name, *arguments)


def environment_of_modules() -> dict[str, str]:
    """Return the environment in which `argv_of_module` finds the module, and in which no Python that a
    library or the child starts looks into the working directory.

    `PYTHONPATH` keeps only its absolute entries: a relative one is a place in the working directory.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([str(_TOP), *(entry for entry in entries if os.path.isabs(entry))])  # noqa: PTH117
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def start_module(
    name: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    start_new_session: bool = False,
    pass_fds: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a module of ours as a process; `environment` is added to its own. Raises OSError."""
    return subprocess.Popen(
        argv_of_module(name, *arguments),
        env=environment_of_modules() | dict(environment or {}),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=start_new_session,
        pass_fds=pass_fds,
    )


def become_command(*arguments: str) -> NoReturn:
    """Replace this process by memcg-tracer with these arguments. Raises OSError."""
    argv = argv_of_module("tracer", *arguments)
    os.execve(argv[0], argv, environment_of_modules())


def argv_of_script(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a script of ours, which needs only the standard library."""
    return (sys.executable, "-I", "-S", script, *arguments)


def stand_back(*, is_awaited: bool = False) -> None:
    """Give way to all other processes, for memory, and for the CPU unless a user waits for the answer.

    A child calls it for itself, and loses a higher priority of its parent.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with suppress(OSError):
        least = 0 if is_awaited else _NICE
        os.setpriority(os.PRIO_PROCESS, 0, max(least, os.getpriority(os.PRIO_PROCESS, 0)))
    be_first_victim()


def be_first_victim() -> None:
    """Make the OOM killer choose this process before others: a child is easily replaced."""
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        if int(score.read_text("ascii")) < _OOM_SCORE_ADJ:
            score.write_text(str(_OOM_SCORE_ADJ), "ascii")


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has taken, in seconds. Raises OSError if there is no such process.

    On a busy machine, or under a CPU quota, this is what tells a child that works from one that does not end.
    """
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)
