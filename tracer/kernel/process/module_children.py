"""The only way to start Python: children that run a module of ours, and trust no working directory.

Root's working directory may belong to anybody, and have a `tracer/` or a `json.py` in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import tracer

_TOP: Final = Path(tracer.__file__).parents[1]
_NICE: Final = 10
_OOM_SCORE_ADJ: Final = 500  # the protection of `watch` must not protect its children


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


def become_module(name: str, *arguments: str) -> NoReturn:
    """Replace this process by a module of ours. Raises OSError."""
    argv = argv_of_module(name, *arguments)
    os.execve(argv[0], argv, environment_of_modules())


def argv_of_script(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a script of ours, whatever the environment contains; the script needs only
    the standard library."""
    return (sys.executable, "-I", "-S", script, *arguments)


def stand_back() -> None:
    """Give way to all other processes, for the CPU and for memory; called by the child itself."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        if int(score.read_text("ascii")) < _OOM_SCORE_ADJ:
            score.write_text(str(_OOM_SCORE_ADJ), "ascii")
