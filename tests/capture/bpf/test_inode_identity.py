"""The BPF program's function for the identity of files, compiled for this machine."""

from __future__ import annotations

import ctypes
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "bpf" / "shared" / "paths.h"
FUNCTION = re.compile(r"static __always_inline (u64 inode_identity\(.*?\n}\n)", re.DOTALL)
FILES = 200_000


def test_inode_identity_of_many_files_has_no_collision(tmp_path: Path) -> None:
    """Inode numbers are consecutive, with random generations, as in ext4."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    function = FUNCTION.search(SOURCE.read_text())
    assert function is not None
    code, library = tmp_path / "identity.c", tmp_path / "identity.so"
    code.write_text(f"typedef unsigned u32;\ntypedef unsigned long long u64;\n{function[1]}")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, code], check=True)
    identity = ctypes.CDLL(str(library)).inode_identity
    identity.argtypes = [ctypes.c_uint, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_uint]
    identity.restype = ctypes.c_longlong
    generations, first = random.Random(23), 1 << 20
    numbers = range(first, first + FILES)
    found = {identity(254 << 20, 0, number, generations.getrandbits(32)) for number in numbers}
    assert len(found) == FILES
    assert min(found) >= 0
    volumes = {identity(7 << 20, volume, number, 0) for volume in range(300) for number in range(300)}
    assert len(volumes) == 300 * 300
