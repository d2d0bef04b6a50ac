"""The stacks of a trace, looked up by number: their frames and functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import pandas as pd

from tracer.analysis.core.columns import NO_ID, integers

Frames = tuple[str, ...]

_OFFSET: Final = re.compile(r"\+0x[0-9a-f]+$")
_NO_NAMES: Final = ("[unknown]",)
"""The functions of a stack whose names were not written before the recorder was killed."""


class Functions:
    """The table `stacks`, by `stack_id`."""

    def __init__(self, stacks: pd.DataFrame) -> None:
        self._frames = dict(zip(integers(stacks["stack_id"]).tolist(), stacks["frames"], strict=True))
        self._known: dict[int, Frames] = {NO_ID: ()}

    def frames_for(self, stack_id: int) -> Frames | None:
        """Return the frames as they were recorded, innermost first; None if there is no such stack."""
        frames = self._frames.get(stack_id)
        return None if frames is None else tuple(map(str, frames))

    def functions_for(self, stack_id: int) -> Frames:
        """Return the functions, innermost first; () for `NO_ID`: no stack was taken."""
        if stack_id not in self._known:
            frames = self.frames_for(stack_id)
            known = _NO_NAMES if frames is None else tuple(map(function_of, frames))
            self._known[stack_id] = known
        return self._known[stack_id]

    def unnamed(self) -> int:
        """Return the number of stacks that consist of addresses only."""
        return sum(not is_named(frames) for frames in self._frames.values())


def function_of(frame: str) -> str:
    """Return `symbol` of `symbol+0xoffset` and of `symbol [module]`; a frame without a symbol unchanged."""
    if frame.startswith("["):
        return frame
    return frame.rpartition(" [")[0] if frame.endswith("]") else _OFFSET.sub("", frame)


def is_named(frames: Iterable[object] | None) -> bool:
    """Return whether a stack is known and has names: the recorder may have had no time to find them."""
    return frames is not None and not all(str(frame).startswith("0x") for frame in frames)
