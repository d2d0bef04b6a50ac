"""Tables of offsets of CPython's versions, as their headers lay them out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tracer.kernel.process import cpython
from tracer.kernel.process.cpython import NotReadError

RUNTIME = "size finalizing head"
INTERPRETER = "gc modules sysdict builtins gil runtime enabled locked holder"
CODE = "size filename name qualname line_table first_line argcount names kinds first_instruction"
LAYOUTS = {
    (
        3,
        13,
    ): f"{RUNTIME} size id . threads {INTERPRETER} size prev next interp frame thread_id native chunk status "
    f"size previous code instruction localsplus owner {CODE}",
    (3, 14): f"{RUNTIME} size id . threads main {INTERPRETER} generation tlbc "
    "size prev next interp frame thread_id native chunk status "
    f"size previous code instruction localsplus owner stackpointer tlbc {CODE} tlbc",
    (3, 15): f"{RUNTIME} size id . threads main {INTERPRETER} generation tlbc "
    "size prev next interp frame base profiled profiled_seq thread_id native chunk status "
    "holds requested exception exc_state exc_value "
    f"size previous code instruction localsplus owner stackpointer tlbc {CODE} tlbc",
}
"""Names of the numbers after `version` and `free_threaded`, with the names of `Offsets` for those that are
read (Include/internal/pycore_runtime.h in 3.13, pycore_debug_offsets.h later)."""
READ = {*cpython.Offsets._fields} - {"cframe", "version", "text", "text_length", "bytes", "bytes_length"}
FIRST = 28


def table(
    version: tuple[int, int], *, free_threaded: bool = False, damaged: Mapping[int, int] | None = None
) -> tuple[int, ...]:
    """Return a table in which each number is larger by one than the one before it."""
    numbers = [FIRST + place for place in range(cpython._DEBUG_OFFSETS.size // 8 - 1)]
    numbers[0] = version[0] << 24 | version[1] << 16 | 0xF0
    numbers[1] = int(free_threaded)
    for place, number in (damaged or {}).items():
        numbers[place] = number
    return tuple(numbers)


@pytest.mark.parametrize("version", LAYOUTS, ids=lambda version: f"{version[0]}.{version[1]}")
def test_offsets_of_a_version_are_at_the_places_of_its_header(version: tuple[int, int]) -> None:
    names = LAYOUTS[version].split()
    found = cpython._of_debug_offsets("python", 4096, table(version))
    assert (found.version, found.runtime, found.offsets.cframe) == (version, 4096, 0)
    assert set(names) >= READ
    # Interpreters have a member `next` as well, which is a dot here: each name that is read is unique.
    for name in READ:
        assert names.count(name) == 1
        assert getattr(found.offsets, name) == FIRST + 2 + names.index(name)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": (3, 16)}, "frames of CPython 3.16 are not read"),
        ({"version": (3, 13), "free_threaded": True}, r"free-threaded CPython \(3.13\) are not read"),
        ({"version": (3, 14), "free_threaded": True}, r"free-threaded CPython \(3.14\) are not read"),
        ({"version": (3, 14), "damaged": {4: 1 << 40}}, "the table of offsets is damaged"),
        ({"version": (3, 14), "damaged": {31: 80}}, "the table of offsets is damaged"),
        ({"version": (3, 14), "damaged": {42: 40}}, "the table of offsets is damaged"),
    ],
)
def test_table_that_is_not_known_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(NotReadError, match=why):
        cpython._of_debug_offsets("python", 4096, table(**changes))


class TableInMemory:
    """The memory of a process whose `_PyRuntime`, wherever it is, begins with a table."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.content = cpython._DEBUG_OFFSETS.pack(cpython._COOKIE, *numbers)

    def read(self, _address: int, size: int) -> bytes:
        return self.content[:size]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: links of map_files are not for other users")
def test_interpreter_of_this_process_with_another_table_is_read_by_that_table() -> None:
    """The interpreter that runs the tests has the symbol; its memory says that it is another version."""
    found = cpython.find_interpreter(os.getpid(), TableInMemory(table((3, 14))))  # type: ignore[arg-type]
    assert found is not None and found.version == (3, 14)
    with pytest.raises(NotReadError, match="free-threaded"):
        cpython.find_interpreter(
            os.getpid(),
            TableInMemory(table((3, 14), free_threaded=True)),  # type: ignore[arg-type]
        )
