"""The stacks of a trace, looked up by number: their frames and functions."""

from __future__ import annotations

import re
from typing import Final

import pandas as pd

from tracer.analysis.core.columns import NO_ID, integers

Frames = tuple[str, ...]

_OFFSET: Final = re.compile(r"\+0x[0-9a-f]+$")
_NO_NAME: Final = "[unknown]"
_NO_NAMES: Final = (_NO_NAME,)
"""For a stack that was taken, and whose names the recorder did not live to write."""


class Functions:
    """What the stacks of a trace are of, by number."""

    def __init__(self, stacks: pd.DataFrame) -> None:
        self._frames = dict(zip(integers(stacks["stack_id"]).tolist(), stacks["frames"], strict=True))
        self._known: dict[int, Frames] = {NO_ID: ()}

    def frames(self, stack_id: int) -> Frames | None:
        """Innermost first, as they were recorded; None: there is no such stack."""
        frames = self._frames.get(stack_id)
        return None if frames is None else tuple(map(str, frames))

    def unnamed(self) -> int:
        """Return how many of the stacks are addresses alone."""
        return sum(all(map(_is_address, frames)) for frames in self._frames.values())

    def of(self, stack_id: int) -> Frames:
        """The functions, innermost first; () where no stack was taken."""
        if stack_id not in self._known:
            frames = self.frames(stack_id)
            known = _NO_NAMES if frames is None else tuple(map(function_of, frames))
            self._known[stack_id] = known
        return self._known[stack_id]


def function_of(frame: str) -> str:
    """`symbol` of `symbol+0xoffset` and of `symbol [module]`; what has no symbol as it is."""
    if frame.startswith("["):
        return frame
    return frame.rpartition(" [")[0] if frame.endswith("]") else _OFFSET.sub("", frame)


def _is_address(frame: object) -> bool:
    return str(frame).startswith("0x")
