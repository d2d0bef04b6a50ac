"""A library that is compiled and mapped here, and a /proc that has it as the only file of process 7."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path


def mapped_library(folder: Path, source: Path, *flags: str) -> ctypes.CDLL:
    """Compile a library and map it. `folder` becomes the /proc."""
    library = folder / "librows.so"
    subprocess.run(["c++", "-O2", *flags, "-shared", "-fPIC", "-o", library, source], check=True)
    loaded = ctypes.CDLL(str(library))
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(library) in line]
    process = folder / "7"
    (process / "map_files").mkdir(parents=True)
    (process / "maps").write_text("\n".join(lines))
    (process / "map_files" / lines[0].split()[0]).symlink_to(library)
    return loaded
