"""Children that run a module of ours, for work that the recorder has no memory for."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import tracer

_TOP: Final = Path(tracer.__file__).parents[1]
_NICE: Final = 10
_OOM_SCORE_ADJ: Final = 500  # the protection of `watch` must not protect its children


def argv_of_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours, whatever the working directory has."""
    return (sys.executable, "-P", "-m", name)


def environment_of_modules() -> dict[str, str]:
    """Return the environment in which `argv_of_module` finds the module."""
    path = os.pathsep.join(filter(None, (str(_TOP), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


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
