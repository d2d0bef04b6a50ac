"""BPF maps, read and written by bpf(2), with ctypes values of their C types."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

from tracer.capture.bpf import syscall
from tracer.capture.bpf.compiled.object_file import MapDefinition

_BPF_MAP_LOOKUP_BATCH: Final = 24
_BPF_MAP_DELETE_BATCH: Final = 27
_ARRAY: Final = 2  # enum bpf_map_type
_ARRAY_OF_MAPS: Final = 12


class _BatchAttr(ctypes.Structure):
    """The `batch` member of union bpf_attr (include/uapi/linux/bpf.h)."""

    _fields_ = (
        *syscall.u64("in_batch", "out_batch", "keys", "values"),
        *syscall.u32("count", "map_fd"),
        *syscall.u64("elem_flags", "flags"),
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
        keys=_address_of(keys),
        values=_address_of(values),
        count=entries,
        map_fd=map_fd,
    )
    with suppress(FileNotFoundError):  # there are no more (kernel/bpf/hashtab.c)
        syscall.bpf(_BPF_MAP_LOOKUP_BATCH, attr)
    return keys[: key_bytes * attr.count], values[: value_bytes * attr.count]


def delete_elements(map_fd: int, keys: bytearray, count: int) -> None:
    """Remove `count` elements, whose keys are in the map. Raises OSError."""
    syscall.bpf(_BPF_MAP_DELETE_BATCH, _BatchAttr(keys=_address_of(keys), count=count, map_fd=map_fd))


def _address_of(buffer: bytearray) -> int:
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


_PER_CPU_KINDS: Final = (5, 6, 10)  # percpu_hash, percpu_array, lru_percpu_hash in enum bpf_map_type

_ALIGNMENT: Final = 8  # of the values of an array or a per-CPU map

_C_TYPES: Final = {
    "char": ctypes.c_char,
    "signed char": ctypes.c_int8,
    "unsigned char": ctypes.c_uint8,
    "_Bool": ctypes.c_bool,
    "short": ctypes.c_int16,
    "unsigned short": ctypes.c_uint16,
    "int": ctypes.c_int32,
    "unsigned int": ctypes.c_uint32,
    "long": ctypes.c_int64,
    "unsigned long": ctypes.c_uint64,
    "long long": ctypes.c_int64,
    "unsigned long long": ctypes.c_uint64,
}
"""BCC's names of C types; it describes a pointer as one of the integers."""


class Element:
    """An element of an array, read again and again into the same memory: one system call, and no objects."""

    def __init__(self, map_fd: int, key: Any, value: Any) -> None:
        self._value = value
        self._key = key  # `_look_up` holds its address
        self._look_up = syscall.lookup(map_fd, key, value)

    def read(self) -> Any:
        """Return the value; in a per-CPU map, an array by CPU number. The next call changes it.

        Raises OSError.
        """
        self._look_up()
        return self._value


class Map:
    """One map.

    A key is a number, or bytes if the C type is text. A value is a ctypes object, a copy; in a per-CPU map it
    is a list of them by CPU number.
    """

    def __init__(self, definition: MapDefinition, cpus: int) -> None:
        """Create the map. Raises OSError if the kernel refuses."""
        self._definition = definition
        self._cpus = cpus if definition.kind in _PER_CPU_KINDS else None
        self.fd = syscall.create_map(
            definition.kind,
            key_size=definition.key_size,
            value_size=definition.value_size,
            entries=definition.max_entries,
            flags=definition.flags,
            name=definition.name,
        )

    @property
    def _value_bytes(self) -> int:
        """Return the size of all that a key has: in a per-CPU map, the aligned values of all CPUs
        (bpf_map_value_size in kernel/bpf/syscall.c).
        """
        size = self._definition.value_size
        return size if self._cpus is None else -(-size // _ALIGNMENT) * _ALIGNMENT * self._cpus

    @cached_property
    def key_type(self) -> Any:
        """Return the ctypes type of the keys."""
        return _sized(json.loads(self._definition.key_type), self._definition.key_size)

    @cached_property
    def value_type(self) -> Any:
        """Return the ctypes type of the values; for a per-CPU map, the type of one CPU's value."""
        return _sized(json.loads(self._definition.value_type), self._definition.value_size)

    def __getitem__(self, key: int | bytes) -> Any:
        """Return the value of a key. Raises KeyError."""
        value = self._lookup(self.key_type(key))
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a value. Both are of the map's types, or arguments for them. Raises OSError if it is full."""
        syscall.update_element(
            self.fd,
            key if isinstance(key, self.key_type) else self.key_type(key),
            value if isinstance(value, self.value_type) else self.value_type(value),
        )

    def share(self) -> mmap.mmap:
        """Map the elements of an array that was made with BPF_F_MMAPABLE; each begins at a multiple of 8
        bytes (array_map_mmap in kernel/bpf/arraymap.c). Raises OSError.
        """
        size = -(-self._definition.value_size // _ALIGNMENT) * _ALIGNMENT * self._definition.max_entries
        return mmap.mmap(self.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def element(self, key: int) -> Element:
        """Return an element to be read often."""
        values = self.value_type * self._cpus if self._cpus else self.value_type
        assert not self._cpus or ctypes.sizeof(self.value_type) % _ALIGNMENT == 0
        return Element(self.fd, self.key_type(key), values())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield the keys and the values of a hash map as ctypes objects."""
        keys, values = self.read_elements()
        key_bytes, value_bytes = self._definition.key_size, self._definition.value_size
        for number in range(len(keys) // key_bytes):
            yield (
                self.key_type.from_buffer(keys, number * key_bytes),
                self.value_type.from_buffer(values, number * value_bytes),
            )

    def read_elements(self) -> tuple[bytearray, bytearray]:
        """Return all keys and all values, as two arrays without gaps. Raises OSError.

        In a per-CPU map, a value has one part for each CPU.
        """
        return read_elements(
            self.fd,
            key_bytes=self._definition.key_size,
            value_bytes=self._value_bytes,
            entries=self._definition.max_entries,
        )

    def clear(self) -> None:
        """Remove all elements of a hash map, which no program may change meanwhile. Raises OSError."""
        keys, _ = self.read_elements()
        if keys:
            delete_elements(self.fd, keys, len(keys) // self._definition.key_size)

    def delete(self, key: int | bytes) -> bool:
        """Remove a key. Return False if it was not in the map."""
        return syscall.delete_element(self.fd, self.key_type(key))

    def _lookup(self, key: Any) -> Any:
        """Return the value of a key, or None."""
        if self._cpus is None:
            value = self.value_type()
            return value if syscall.lookup_element(self.fd, key, value) else None
        values = ctypes.create_string_buffer(self._value_bytes)
        if not syscall.lookup_element(self.fd, key, values):
            return None
        starts = range(0, self._value_bytes, self._value_bytes // self._cpus)
        return [self.value_type.from_buffer_copy(values, start) for start in starts]


def _sized(description: Any, size: int) -> Any:
    made = _c_type(description)
    if ctypes.sizeof(made) != size:
        raise AssertionError(f"{made.__name__} has {ctypes.sizeof(made)} bytes here, {size} in the kernel")
    return made


def _c_type(description: Any) -> Any:
    """Return the ctypes type for BCC's description of a C type.

    A description is the type's name, or [name, fields, "struct"]. A field is [name, type]; if it is an array,
    [name, type, [length]]. In a "struct_packed" the padding is a field.
    """
    if isinstance(description, str):
        return _C_TYPES[description]
    name, fields, kind = description
    layout = {"struct": {}, "struct_packed": {"_pack_": 1}}[kind]
    made = [(f[0], _c_type(f[1]) if len(f) == 2 else _c_type(f[1]) * f[2][0]) for f in fields]
    return type(name, (ctypes.Structure,), layout | {"_fields_": made})
