"""Files of programs that ran: found by what records say, and named unless they changed since."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.compiled import compiled

from tracer.capture.symbols import unwinding
from tracer.capture.symbols.address_names import ExecImage
from tracer.capture.symbols.program_files import ProgramFile, ProgramFiles, open_program
from tracer.capture.symbols.symbol_tables import ProgramSymbols
from tracer.errors import TracerError
from tracer.kernel.process.elf_file import elf_file
from tracer.wire.dtypes import WIRE

IMAGE, OTHER = ExecImage(0x5000, 0x7FFF_0000), ExecImage(0x5000, 0x7FFE_0000)
PLACE = 0x5555_5555_0000

needs_libdw = pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}")


def row(inode_id: int, **changed: Any) -> dict[str, Any]:
    usual = {"path": "/bin/work", "path_kind": "host", "dev": "8:1", "ino": 77, "mode": 0o100755}
    return {"inode_id": inode_id, **usual, **changed}


def tasks(*ran: tuple[int, ExecImage, int]) -> Any:
    records = np.zeros(len(ran), WIRE["task"])
    for record, (tgid, image, inode_id) in zip(records, ran, strict=True):
        record["tgid"], record["start_code"], record["start_stack"] = tgid, *image
        record["time_ns"], record["exe_inode_id"] = 5, inode_id
    return records


def test_program_is_that_of_the_image_which_ran() -> None:
    known = ProgramFiles()
    known.take(tasks((7, IMAGE, 1), (7, OTHER, 2), (8, IMAGE, 0), (9, IMAGE, 3)), [row(1)], 1000)
    assert known.of(7, IMAGE) == ProgramFile("/bin/work", "8:1", 77, 1005, 0x5000)
    assert [known.of(7, OTHER), known.of(8, IMAGE), known.of(9, IMAGE), known.of(10, IMAGE)] == [None] * 4
    known.take(tasks(), [row(2, path="/bin/next")], 1000)
    assert known.of(7, OTHER) == ProgramFile("/bin/next", "8:1", 77, 1005, 0x5000)


@pytest.mark.parametrize(
    "no_program", [{"path_kind": "container"}, {"path_kind": None, "path": None}, {"mode": 0o100644}]
)
def test_file_that_cannot_be_opened_by_its_path_is_no_program(no_program: dict[str, Any]) -> None:
    known = ProgramFiles()
    known.take(tasks((7, IMAGE, 1)), [row(1, **no_program)], 0)
    assert known.of(7, IMAGE) is None


@pytest.fixture(params=["-no-pie", "-pie"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> ProgramFile:
    """Return a compiled program as it ran; one that is not relocated ran at its own addresses."""
    path = compiled("bursting", tmp_path, request.param, "-g")
    status = path.stat()
    with elf_file(path) as elf:
        assert elf is not None
        start_code = min(one.start for one in elf.code()) + (PLACE if request.param == "-pie" else 0)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return ProgramFile(str(path), device, status.st_ino, time.time_ns(), start_code)


@needs_libdw
def test_functions_are_named_where_the_kernel_has_put_them(program: ProgramFile) -> None:
    listed = subprocess.run(["nm", program.path], check=True, capture_output=True, text=True).stdout
    at = {
        name: int(value, 16)
        for value, _, name in (line.split()[-3:] for line in listed.splitlines() if len(line.split()) == 3)
    }
    shift = PLACE if program.start_code > PLACE else 0
    table = ProgramSymbols(7, program)
    for name in ("grow_most", "grow_least", "main"):
        found = table.resolve(at[name] + shift + 4)
        assert (found.symbol, found.offset, found.module) == (name, 4, program.path)
        assert found.source[0].file == "bursting.c"
    for elsewhere in (0x10, at["main"] + shift + (1 << 30), 0x7FFF_1234_5678):
        assert table.resolve(elsewhere).module is None


def test_file_that_changed_since_or_took_the_place_of_another_is_refused(program: ProgramFile) -> None:
    os.close(open_program(program).fd)
    is_relocated = program.start_code > PLACE
    for other in (
        program._replace(inode=program.inode + 1),
        program._replace(device="0:0"),
        program._replace(seen_ns=program.seen_ns - (1 << 40)),
        program._replace(start_code=program.start_code + (1 if is_relocated else 4096)),
    ):
        with pytest.raises(TracerError):
            open_program(other)
    before = len([*Path("/proc/self/fd").iterdir()])
    Path(program.path).write_bytes(b"\x7fELF")
    os.utime(program.path, ns=(0, 0))
    with pytest.raises(TracerError):
        open_program(program)
    Path(program.path).unlink()
    Path(program.path).symlink_to("/bin/sh")
    with pytest.raises(OSError):
        open_program(program)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
