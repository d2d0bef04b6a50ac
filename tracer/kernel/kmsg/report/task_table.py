"""The table of tasks that could have been killed (dump_tasks, mm/oom_kill.c)."""

from __future__ import annotations

from typing import Final

from tracer.kernel.kmsg.report.log_report import TaskRow
from tracer.kernel.kmsg.text.line_markers import task_row

_MOST_COLUMNS: Final = 20
_NEEDED: Final = frozenset({"uid", "tgid", "total_vm", "rss"})
_ADJ: Final = "oom_score_adj"
_OLD_ADJ: Final = "oom_adj"
"""The column before a63d83f427fb ("oom: badness heuristic rewrite"), v2.6.36: from -17 (never killed) to
15."""

_OLD_NEVER: Final = -17
_OLD_MOST: Final = 15


def columns(text: str) -> tuple[str, ...] | None:
    """Return the names of the columns from the title of the table, which differ by release; None for any
    other line."""
    head, _, names = text.strip().partition("]")
    if head.replace(" ", "") != "[pid" or not names.endswith(" name"):
        return None
    found = ("pid", *names.split())
    titles = {*found[:_MOST_COLUMNS]}
    return found if titles >= _NEEDED and titles & {_ADJ, _OLD_ADJ} else None


def row(text: str, names: tuple[str, ...]) -> TaskRow | None:
    """Return a row of the table with these columns; None for any other line."""
    found = task_row(text, len(names) - 2)
    if found is None:
        return None
    *numbers, comm = found.groups()
    cells = dict(zip(names, map(int, numbers), strict=False))
    return TaskRow(
        pid=cells["pid"],
        uid=cells["uid"],
        tgid=cells["tgid"],
        total_vm_pages=cells["total_vm"],
        rss_pages=cells["rss"],
        rss_anon_pages=cells.get("rss_anon"),
        rss_file_pages=cells.get("rss_file"),
        rss_shmem_pages=cells.get("rss_shmem"),
        pgtables_bytes=cells.get("pgtables_bytes"),
        swapents_pages=cells.get("swapents", 0),
        oom_score_adj=cells[_ADJ] if _ADJ in cells else _scaled(cells[_OLD_ADJ]),
        comm=comm,
    )


def _scaled(oom_adj: int) -> int:
    """Return the oom_score_adj to which later kernels convert an oom_adj (oom_adj_write, fs/proc/base.c)."""
    return 1000 if oom_adj == _OLD_MOST else int(oom_adj * 1000 / -_OLD_NEVER)
