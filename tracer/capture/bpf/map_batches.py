"""All elements of a hash map at once, and the wait for the programs that may still be changing them."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

from tracer.capture.bpf import syscall

_BPF_MAP_LOOKUP_BATCH: Final = 24
_BPF_MAP_DELETE_BATCH: Final = 27
_ARRAY: Final = 2  # enum bpf_map_type
_ARRAY_OF_MAPS: Final = 12


class _BatchAttr(ctypes.Structure):
    """The `batch` member of union bpf_attr (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


def read_elements(
    map_fd: int, *, key_bytes: int, value_bytes: int, entries: int
) -> tuple[bytearray, bytearray]:
    """Return the keys and the values of a hash map of at most `entries` elements, as two arrays without gaps.

    Raises OSError.
    """
    keys, values = bytearray(key_bytes * entries), bytearray(value_bytes * entries)
    next_bucket = ctypes.c_uint32()
    attr = _BatchAttr(
        out_batch=ctypes.addressof(next_bucket),
        keys=_address(keys),
        values=_address(values),
        count=entries,
        map_fd=map_fd,
    )
    with suppress(FileNotFoundError):  # there are no more (kernel/bpf/hashtab.c)
        syscall.bpf(_BPF_MAP_LOOKUP_BATCH, attr)
    return keys[: key_bytes * attr.count], values[: value_bytes * attr.count]


def delete_elements(map_fd: int, keys: bytearray, count: int) -> None:
    """Remove `count` elements, whose keys are in the map. Raises OSError."""
    syscall.bpf(_BPF_MAP_DELETE_BATCH, _BatchAttr(keys=_address(keys), count=count, map_fd=map_fd))


def _address(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


class ProgramBarrier:
    """Waits for running programs to end.

    An update of a map of maps returns after all programs that were running have ended, so that none uses the
    map that was replaced: 1ae80cf31938 ("bpf: wait for running BPF programs when updating map-in-map"). The
    update takes some milliseconds, and less than one since ff34657aa72a ("bpf: optimize bpf_map_update_elem()
    for map-in-map types").
    """

    def __init__(self) -> None:
        """Create the maps. Raises OSError."""
        self._inner = syscall.create_map(_ARRAY, key_size=4, value_size=4, entries=1)
        self._outer = syscall.create_map(
            _ARRAY_OF_MAPS, key_size=4, value_size=4, entries=1, inner=self._inner, name="barrier"
        )

    def wait(self) -> None:
        """Return when each program that was running at the call has ended. Raises OSError."""
        syscall.update_element(self._outer, ctypes.c_uint32(0), ctypes.c_uint32(self._inner))

    def close(self) -> None:
        """Close the maps."""
        os.close(self._outer)
        os.close(self._inner)
