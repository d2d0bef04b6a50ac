"""Packets of Perfetto in large numbers, without Python code for each packet.

The official package makes one packet. The others differ from it only in some numbers. A number in a packet is
a varint. Protocol buffers allow a varint to be longer than necessary, so all numbers are written with ten
bytes, the longest varint. Then all packets of a template have the same length, and NumPy fills in the
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_VARINT_BYTES: Final = 10
_GROUP_BITS: Final = 7
_MORE: Final = 0x80
_SHIFTS: Final = np.arange(_VARINT_BYTES, dtype=np.uint64) * np.uint64(_GROUP_BITS)


@dataclass(frozen=True, slots=True)
class PacketTemplate:
    """The bytes of a packet, and the positions of its variable numbers."""

    plain: Bytes
    places: tuple[int, ...]

    @classmethod
    def from_packet(cls, make: Callable[..., bytes], numbers: int) -> Self:
        """Return the template of the packets that `make` serializes, given `numbers` unsigned 64-bit numbers.

        Raises ValueError if `make` does not put each number into the packet exactly once.
        """
        marks = [(1 << 64) - 1 - number for number in range(numbers)]
        packet = make(*marks)
        varints = [_varints(np.array([[mark]], dtype=np.uint64)).tobytes() for mark in marks]
        if any(packet.count(varint) != 1 for varint in varints):
            raise ValueError("a number is not in the packet, or more than once")
        return cls(np.frombuffer(packet, np.uint8), tuple(map(packet.index, varints)))

    def __len__(self) -> int:
        return len(self.plain)

    def packets(self, numbers: Sequence[npt.NDArray[Any]]) -> Bytes:
        """Return a matrix with a packet in each row, for columns of int64 or uint64 numbers."""
        rows = np.tile(self.plain, (len(numbers[0]), 1))
        for place, column in zip(self.places, numbers, strict=True):
            rows[:, place : place + _VARINT_BYTES] = _varints(column.astype(np.uint64).reshape(-1, 1))
        return rows


def _varints(numbers: npt.NDArray[np.uint64]) -> Bytes:
    """Return the varints of a column of numbers, ten bytes in each row."""
    groups = (numbers >> _SHIFTS) & np.uint64(_MORE - 1)
    groups[:, :-1] |= np.uint64(_MORE)
    return groups.astype(np.uint8)


def in_order(parts: Sequence[tuple[npt.NDArray[np.int64], Bytes]]) -> bytes:
    """Return the packets of several templates, in order. Each part is (positions of its packets in the whole,
    packets)."""
    count = sum(len(positions) for positions, _ in parts)
    lengths = np.zeros(count, dtype=np.int64)
    for positions, packets in parts:
        lengths[positions] = packets.shape[1]
    firsts = np.cumsum(lengths) - lengths
    whole = np.empty(int(lengths.sum()), dtype=np.uint8)
    for positions, packets in parts:
        whole[firsts[positions][:, np.newaxis] + np.arange(packets.shape[1])] = packets
    return whole.tobytes()
