"""The recorder's own memory: it is measured, and what only the start needed is given back."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

DROPS: Final = """
import pyarrow as pa
from pathlib import Path
from tracer.watch import own_memory
def of_files_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0])
def works():
    table = pa.table({"x": pa.array(range(1000), pa.int64())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all().equals(table)
assert works()
before = of_files_kib()
own_memory.drop_code()
print(before, of_files_kib())
own_memory.drop_code()
assert works()
"""


def test_dropping_code_gives_back_most_of_the_libraries_and_they_still_work() -> None:
    done = subprocess.run([sys.executable, "-c", DROPS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after < before / 3


def test_resident_memory_is_that_of_the_process() -> None:
    """In a process of its own: this one may have as much memory that is free and resident."""
    script = (
        "from tracer.watch.own_memory import resident_bytes\n"
        "before = resident_bytes()\n"
        "held = bytearray(b'x') * (64 << 20)\n"
        "print(resident_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert abs(int(done.stdout) - (64 << 20)) < 4 << 20
