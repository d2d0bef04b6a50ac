"""Columns of a batch of samples as NumPy arrays, without pandas and without copies."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import UNLIMITED_BYTES

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

UNKNOWN: Final = -1
"""Stands for null: no value of a sample is negative."""


def values(samples: pa.RecordBatch, column: str) -> Numbers:
    """Return a column of 64-bit integers or times; `UNKNOWN` where it is null."""
    array = samples.column(column)
    validity, data = array.buffers()
    if data is None or array.null_count == len(array):
        return np.full(len(array), UNKNOWN, np.int64)
    numbers = np.frombuffer(data, np.int64, len(array), array.offset * 8)
    if not array.null_count:
        return numbers
    first_byte, first_bit = divmod(array.offset, 8)
    bits = np.frombuffer(validity, np.uint8, -(-(first_bit + len(array)) // 8), first_byte)
    is_known = np.unpackbits(bits, bitorder="little")[first_bit:][: len(array)].view(np.bool_)
    return np.where(is_known, numbers, UNKNOWN)


def at_least_0(samples: pa.RecordBatch, column: str) -> Numbers:
    """Return a column of sizes; 0 where it is null."""
    return np.maximum(values(samples, column), 0)


def limits(samples: pa.RecordBatch, column: str) -> Numbers:
    """Return a column of limits in bytes; `UNLIMITED_BYTES` where it is null."""
    numbers = values(samples, column)
    return np.where(numbers == UNKNOWN, UNLIMITED_BYTES, numbers)


def is_word(samples: pa.RecordBatch, column: str, word: str) -> Flags:
    """Return a mask of the rows in which a column of names without null has this word."""
    array = samples.column(column)
    words = array.dictionary.to_pylist()
    codes = np.frombuffer(array.indices.buffers()[1], np.int32, len(array), array.offset * 4)
    return codes == words.index(word) if word in words else np.zeros(len(array), np.bool_)


def turns(keys: Numbers) -> list[Numbers]:
    """Return the positions of the rows in groups without a key twice: the first row of each key, the second,
    and so on. So a group can be worked on as arrays, and the rows of a key come in their order.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    if is_first.all():
        return [order] if len(order) else []
    firsts = np.flatnonzero(is_first)
    turn = np.arange(len(keys)) - np.repeat(firsts, np.diff(firsts, append=len(keys)))
    return np.split(order[np.argsort(turn, kind="stable")], np.cumsum(np.bincount(turn))[:-1])
