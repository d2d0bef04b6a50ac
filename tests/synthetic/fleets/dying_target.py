"""A place with traces at which the process that looks for the files of one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthetic.fleets.cut_short import is_first

from tracer.fleet.pushing.target import Target, TargetError


class DyingTarget(Target):
    """A place of this machine; `once` is a path at which there is a file after the first death, or None:
    each process dies."""

    def __init__(self, url: str, once: Path | None) -> None:
        super().__init__(url)
        self._once = once

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._asked, self._once)

    def list(
        self, folder: str, leave_out: Callable[[str, TargetError], None] | None = None
    ) -> dict[str, int]:
        if self._once is None or is_first(self._once):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().list(folder, leave_out)
