"""Run command lines as on macOS: `python -m support.as_darwin NAME.json`.

The file has a list of command lines, and gets a list of [status, stdout, stderr] in its place. Each runs in a
fork of this process.

Third-party packages are imported first, because they have wheels for macOS. After that `sys.platform` is
"darwin", the standard library lacks the names that it has on Linux alone, the C library has no function, and
the code of the tracer finds neither /proc nor /sys. A module of the tracer that is started as a process sees
the same.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import runpy
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

TRACER: Final = str(Path(__file__).parents[2] / "tracer")
THIRD_PARTY: Final = (
    *("click.testing", "dask.threaded", "fsspec", "google.protobuf", "jinja2", "markupsafe", "numpy"),
    *("pandas", "perfetto", "prometheus_client", "pyarrow.compute", "pyarrow.dataset"),
    *("pyarrow.fs", "pyarrow.parquet", "rich.console", "rich.table"),
)
LINUX_ONLY: Final[Mapping[str, str]] = {
    "os": (
        "EFD_CLOEXEC EFD_NONBLOCK EFD_SEMAPHORE GRND_NONBLOCK GRND_RANDOM MFD_ALLOW_SEALING "
        "MFD_CLOEXEC O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE POSIX_FADV_DONTNEED "
        "POSIX_FADV_NOREUSE POSIX_FADV_NORMAL POSIX_FADV_RANDOM POSIX_FADV_SEQUENTIAL "
        "POSIX_FADV_WILLNEED P_PIDFD RWF_APPEND RWF_DSYNC RWF_HIPRI RWF_NOWAIT RWF_SYNC SCHED_BATCH "
        "SCHED_IDLE SCHED_RESET_ON_FORK SPLICE_F_MORE SPLICE_F_MOVE SPLICE_F_NONBLOCK XATTR_CREATE "
        "XATTR_REPLACE XATTR_SIZE_MAX copy_file_range eventfd eventfd_read eventfd_write fdatasync "
        "getrandom getresgid getresuid getxattr listxattr memfd_create pidfd_open pipe2 posix_fadvise "
        "posix_fallocate removexattr sched_getaffinity sched_getparam sched_getscheduler "
        "sched_rr_get_interval sched_setaffinity sched_setparam sched_setscheduler setns setresgid "
        "setresuid setxattr splice unshare waitid"
    ),
    "select": (
        "epoll EPOLLERR EPOLLET EPOLLHUP EPOLLIN EPOLLONESHOT EPOLLOUT EPOLLPRI EPOLL_CLOEXEC POLLRDHUP"
    ),
    "socket": (
        "AF_NETLINK AF_PACKET AF_VSOCK MSG_CMSG_CLOEXEC SCM_CREDENTIALS SOCK_CLOEXEC SOCK_NONBLOCK "
        "SO_PEERCRED"
    ),
    "signal": "SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo",
    "mmap": "MADV_DONTFORK MADV_HUGEPAGE MADV_NOHUGEPAGE MAP_POPULATE MAP_STACK",
    "time": "CLOCK_BOOTTIME CLOCK_TAI pthread_getcpuclockid",
    "fcntl": "F_ADD_SEALS F_GETPIPE_SZ F_GET_SEALS F_NOTIFY F_SETPIPE_SZ",
    "resource": "RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_SIGPENDING RUSAGE_THREAD prlimit",
    "errno": "EBADFD EKEYEXPIRED ENOKEY ENOMEDIUM ENONET EREMOTEIO ERESTART EUCLEAN",
}
"""Module -> names that typeshed, mypy's types of the standard library, has for linux and not for darwin."""

_OFTEN_USED: Final = ("tracer.cli.page_contents", "tracer.fleet.reduction.fleet_run")
"""Modules of the tracer that most command lines use: they are imported once, as on macOS, for all of them."""
_LINUX_FILES: Final = ("/proc", "/sys")
_STANDARD_LIBRARY: Final = (sysconfig.get_path("stdlib"), "<frozen", __file__)


def pretend() -> None:
    """Make this process see macOS for the rest of its life."""
    for name in THIRD_PARTY:
        importlib.import_module(name)
    assert not any(name.startswith("tracer.") for name in sys.modules)
    for module, names in LINUX_ONLY.items():
        for name in names.split():
            vars(importlib.import_module(module)).pop(name, None)  # some came with a later Python
    sys.platform = "darwin"
    ctypes.CDLL = _Library  # type: ignore[assignment,misc]
    sys.addaudithook(_hide_linux_files)
    for name in ("stat", "lstat", "readlink", "access"):
        setattr(os, name, _hiding(getattr(os, name)))


class _Library:
    """The program itself, in which no function is found. Other libraries cannot be loaded."""

    def __init__(self, name: str | None = None, *_: Any, **__: Any) -> None:
        if name is not None:
            raise OSError(f"dlopen({name}): no such library on macOS")


def _hide_linux_files(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir"):
        _require_other_file(arguments[0])


def _hiding(call: Any) -> Any:
    def hiding(path: Any, *arguments: Any, **options: Any) -> Any:
        _require_other_file(path)
        return call(path, *arguments, **options)

    return hiding


def _require_other_file(path: Any) -> None:
    """Raise FileNotFoundError for a path of Linux that code of the tracer asks for, also by the standard
    library."""
    if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(_LINUX_FILES):
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_STANDARD_LIBRARY):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(TRACER):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


def _interpreter(folder: Path) -> str:
    """Return the path of a program that runs a module as Python does, and sees macOS."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m support.as_darwin "$@"\n')
    program.chmod(0o700)
    return str(program)


def _run(argv: list[str]) -> NoReturn:
    """Run a command line, and end the process with its status."""
    status: object = 70  # EX_SOFTWARE: `main` raised something else
    try:
        from tracer.cli import main

        sys.argv = ["memcg-tracer", *argv]
        main()
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 0)


def _outcome(argv: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a command line in a fork, and return its status, stdout and stderr."""
    outputs = [folder / name for name in ("stdout", "stderr")]
    child = os.fork()
    if child == 0:
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        _run(argv)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, outputs[0].read_text(), outputs[1].read_text()


def main(document: Path) -> None:
    """Run the command lines of a file, and replace them by their outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        sys.executable = _interpreter(Path(folder))
        for name in _OFTEN_USED:
            importlib.import_module(name)
        outcomes = [_outcome(argv, Path(folder)) for argv in json.loads(document.read_text())]
        document.write_text(json.dumps(outcomes))


if __name__ == "__main__":
    pretend()
    if sys.argv[1:3] == ["-P", "-m"]:
        sys.argv[:] = sys.argv[3:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        main(Path(sys.argv[1]))
