"""Many records in little memory: pickled and compressed, some dozens together.

A long kernel log has hundreds of thousands of reports of a few kB each, which are much alike.
"""

from __future__ import annotations

import pickle
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from io import BytesIO
from operator import attrgetter
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")

_TOGETHER: Final = 64
_LEVEL: Final = 1  # more levels take more time and save little
_UNPACKED: Final = 2
"""The number of packs that are kept unpacked. An item that was replaced is in another pack than its
neighbours."""


class Packed(Sequence[T]):
    """A sequence of records that grows at its end. Each item that is read is a new object."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._packs: list[bytes] = []
        self._open: list[T] = []
        self._places = array("L")
        self._unpacked: dict[int, list[T]] = {}
        for item in items:
            self.append(item)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._places.append(self._store(item))

    def replace(self, at: int, item: T) -> None:
        """Put an item in the place of an earlier one."""
        self._places[at] = self._store(item)

    def only(self, places: Iterable[int]) -> Packed[T]:
        """Return the items at these places, without a copy of them. Add no item to either sequence then."""
        found = Packed[T]()
        found._packs, found._open = self._packs, self._open
        found._places.extend(self._places[at] for at in places)
        return found

    def _store(self, item: T) -> int:
        place = len(self._packs) * _TOGETHER + len(self._open)
        self._open.append(item)
        if len(self._open) == _TOGETHER:
            self._packs.append(_packed(self._open))
            self._open.clear()
        return place

    def _item(self, place: int) -> T:
        pack, at = divmod(place, _TOGETHER)
        if pack == len(self._packs):
            return self._open[at]
        if pack not in self._unpacked:
            while len(self._unpacked) >= _UNPACKED:
                del self._unpacked[next(iter(self._unpacked))]
            self._unpacked[pack] = pickle.loads(zlib.decompress(self._packs[pack]))
        return self._unpacked[pack][at]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[T]:
        return map(self._item, self._places)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self._item(place) for place in self._places[at]]
        return self._item(self._places[at])


class _Reducers(dict[type, Callable[[Any], tuple[Any, ...]]]):
    """Functions that pickle a named tuple or a frozen dataclass, by class. The methods that `dataclass` makes
    for it look for its fields at each object, which takes five times as long."""

    def __missing__(self, made: type) -> Callable[[Any], tuple[Any, ...]]:
        if issubclass(made, tuple):
            self[made] = lambda item: (made, tuple(item))
            return self[made]
        if not is_dataclass(made):
            raise KeyError(made)
        names = [field.name for field in fields(made)]
        values = attrgetter(*names) if len(names) > 1 else lambda item: (getattr(item, names[0]),)
        self[made] = lambda item: (made, values(item))
        return self[made]


_REDUCERS: Final = _Reducers()


def _packed(items: Sequence[object]) -> bytes:
    out = BytesIO()
    pickler = pickle.Pickler(out, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(items)
    return zlib.compress(out.getvalue(), _LEVEL)
