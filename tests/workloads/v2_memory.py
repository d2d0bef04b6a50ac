"""Kinds of memory that only v2 charges: `v2_memory.py zswap|hugetlb CGROUP` fills a cgroup until the kill."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAP_HUGETLB = 0x40000  # include/uapi/asm-generic/mman-common.h
_HUGE_BYTES = 2 << 20
_HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
_ZSWAP = Path("/sys/module/zswap/parameters/enabled")
_ACCOUNTING = "memory_hugetlb_accounting"


@contextmanager
def zswap() -> Iterator[bool]:
    """Enable zswap, and yield whether this kernel can."""
    before = _ZSWAP.read_text("ascii") if _ZSWAP.exists() else None
    try:
        yield before is not None and _is_written(_ZSWAP, "Y")
    finally:
        if before is not None:
            _is_written(_ZSWAP, before)


def _is_written(file: Path, text: str) -> bool:
    try:
        file.write_text(text, encoding="ascii")
    except OSError:
        return False
    return True


@contextmanager
def charged_huge_pages(number: int) -> Iterator[bool]:
    """Reserve huge pages, have them charged to cgroups, and yield whether this kernel can."""
    remount = ["mount", "-o"]
    before = _HUGE_PAGES.read_text("ascii")
    options = next(
        line.split()[3]
        for line in Path("/proc/mounts").read_text("utf-8").splitlines()
        if " cgroup2 " in line
    )
    _HUGE_PAGES.write_text(str(number), encoding="ascii")
    accounted = subprocess.run(
        [*remount, f"remount,{options},{_ACCOUNTING}", "cgroup2", "/sys/fs/cgroup"],
        check=False,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield accounted.returncode == 0
    finally:
        subprocess.run([*remount, f"remount,{options}", "cgroup2", "/sys/fs/cgroup"], check=False)
        _HUGE_PAGES.write_text(before, encoding="ascii")


def main(kind: str, cgroup: str) -> None:
    """Fill the cgroup: with memory of which a quarter cannot be compressed, or with huge pages first."""
    (Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
    huge = []
    if kind == "hugetlb":
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB
        huge = [mmap.mmap(-1, _HUGE_BYTES, flags=flags) for _ in range(int(_HUGE_PAGES.read_text("ascii")))]
        for page in huge:
            page[0] = 1
    held: list[bytes] = []
    while True:
        held += [os.urandom(1024) + bytes(3072) for _ in range(64)]


if __name__ == "__main__":
    main(*sys.argv[1:])
