"""Removal of impossible sizes, which come from lines that were broken or joined wrongly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tracer.kernel.kmsg.report.log_report import Kill, TaskRow

_MARGIN_BYTES: Final = 16 << 20
_MARGIN_PAGES: Final = 4096
"""The error that a per-CPU counter may have: rss is such a counter since f1a7941243c1 ("mm: convert mm's rss
stats into percpu_counter"), v6.2."""


def kill(told: Kill, row: TaskRow | None, machine_bytes: int | None) -> Kill:
    """Return the kill without sizes above the machine's memory, or above the victim's address space.

    Kernels before 941f762bcb27 ("mm/oom: fix pgtables units mismatch in Killed process message"), v5.5, print
    pgtables in bytes with the unit kB.
    """
    whole = told.total_vm_bytes
    resident = sum(filter(None, (told.anon_rss_bytes, told.file_rss_bytes, told.shmem_rss_bytes)))
    if whole is not None and resident > whole + _MARGIN_BYTES:
        return replace(
            told, total_vm_bytes=None, anon_rss_bytes=None, file_rss_bytes=None, shmem_rss_bytes=None
        )
    tables = told.pgtables_bytes
    is_of_bytes = row is not None and tables is not None and tables == (row.pgtables_bytes or 0) * 1024 > 0
    if is_of_bytes or (tables is not None and whole is not None and tables > whole + _MARGIN_BYTES):
        told = replace(told, pgtables_bytes=None)
    return replace(
        told,
        anon_rss_bytes=_within(told.anon_rss_bytes, machine_bytes),
        file_rss_bytes=_within(told.file_rss_bytes, machine_bytes),
        shmem_rss_bytes=_within(told.shmem_rss_bytes, machine_bytes),
    )


def _within(size: int | None, most: int | None) -> int | None:
    return None if size is not None and most is not None and size > most else size


def rows(tasks: Iterable[TaskRow], machine_pages: int | None) -> tuple[TaskRow, ...]:
    """Return the rows, except rows that claim more resident memory than is possible."""
    return tuple(
        row
        for row in tasks
        if row.rss_pages <= row.total_vm_pages + _MARGIN_PAGES
        and (machine_pages is None or row.rss_pages <= machine_pages)
    )
