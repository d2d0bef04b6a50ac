"""File systems in files of the test's own, which are mounted while it runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def require(kind: str, *programs: str) -> None:
    """Skip the test if the kernel does not offer a kind of file system, or a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    missing += [] if kind in known else [f"{kind} in /proc/filesystems"]
    if missing:
        pytest.skip(f"needs {kind}; missing: {', '.join(missing)}")


def image(path: Path, mib: int, *make: str) -> Path:
    """Make a file of so many MiB, and a file system in it: `make` is the command, without the file."""
    with path.open("wb") as file:
        file.truncate(mib << 20)
    subprocess.run([*make, path], check=True, stdout=subprocess.DEVNULL)
    return path


@contextmanager
def mounted(source: str | Path, point: Path, *options: str) -> Iterator[Path]:
    """Mount something with options of mount(8) until the context ends; the mount point is made."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, source, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@contextmanager
def subvolume(folder: Path, *files: Path) -> Iterator[Path]:
    """Mount a Btrfs below a folder, and yield a subvolume of it with copies of these files."""
    require("btrfs", "losetup", "mkfs.btrfs", "btrfs")
    with mounted(
        image(folder / "btrfs", 128, "mkfs.btrfs", "-q"), folder / "on-btrfs", "-o", "loop"
    ) as point:
        subprocess.run(["btrfs", "-q", "subvolume", "create", point / "subvolume"], check=True)
        for file in files:
            shutil.copy(file, point / "subvolume")
        yield point / "subvolume"


@contextmanager
def overlay(folder: Path, *files: Path) -> Iterator[Path]:
    """Mount an overlay below a folder that shows copies of these files from another file system than that of
    its upper directory."""
    require("overlay")
    for name in ("upper", "work"):
        (folder / name).mkdir()
    with mounted("tmpfs", folder / "lower", "-t", "tmpfs") as lower:
        for file in files:
            shutil.copy(file, lower)
        layers = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        with mounted("overlay", folder / "merged", "-t", "overlay", "-o", layers) as merged:
            yield merged
