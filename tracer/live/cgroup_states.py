"""The states of cgroups, as known from their samples: a row of an array for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.live.sample_arrays import Numbers


class CgroupStates:
    """Rows of the type `kind`, one for each cgroup that has been seen and not forgotten.

    A new row is `fresh`. `rows` is replaced when it has to grow.
    """

    def __init__(self, kind: npt.DTypeLike, fresh: tuple[object, ...]) -> None:
        self._fresh = np.array([fresh], kind)
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._end = 0  # the first row that was never in use
        self.rows = np.repeat(self._fresh, 0)

    def __len__(self) -> int:
        return len(self._places)

    def copy_places(self) -> dict[int, int]:
        """Return the position in `rows` of each known cgroup."""
        return self._places.copy()

    def copy_rows(self) -> Any:
        """Return a copy of the rows that are or were in use, with all positions of `copy_places`."""
        return self.rows[: self._end].copy()

    def places(self, cgroup_ids: Numbers) -> Numbers:
        """Return the position in `rows` of each of these cgroups; an unknown cgroup gets a fresh row."""
        places = self._places
        try:
            return np.array([places[number] for number in cgroup_ids.tolist()], np.int64)
        except KeyError:
            for number in cgroup_ids.tolist():
                if number not in places:
                    self._add(number)
        return np.array([places[number] for number in cgroup_ids.tolist()], np.int64)

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Free the rows of cgroups; unknown cgroups are ignored."""
        for number in cgroup_ids:
            place = self._places.pop(number, None)
            if place is not None:
                self.rows[place] = self._fresh[0]
                self._free.append(place)

    def _add(self, cgroup_id: int) -> None:
        if self._free:
            self._places[cgroup_id] = self._free.pop()
            return
        if self._end == len(self.rows):
            self.rows = np.concatenate([self.rows, np.repeat(self._fresh, max(len(self.rows), 16))])
        self._places[cgroup_id] = self._end
        self._end += 1
