"""The step `rows`: a program that keeps rows and an index of them, and grows in a function for each."""

from __future__ import annotations

import mmap
from typing import Final

from tracer.lab.workload.steps import PRIVATE, Pause, mapped, parts

SHARE_OF_ROWS: Final = 0.7


def rows(pause: Pause, size_bytes: str) -> None:
    memory = mapped(int(size_bytes), PRIVATE)
    for part in parts(len(memory)):
        pages = part[:: mmap.PAGESIZE]
        middle = round(SHARE_OF_ROWS * len(pages))
        load_rows(memory, pages[:middle])
        build_index(memory, pages[middle:])
        pause()


def load_rows(memory: mmap.mmap, pages: range) -> None:
    for page in pages:
        memory[page] = 1


def build_index(memory: mmap.mmap, pages: range) -> None:
    for page in pages:
        memory[page] = 2
