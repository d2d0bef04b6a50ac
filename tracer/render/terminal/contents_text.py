"""What is in memory now, for a terminal: the answer, and a table for each cgroup or of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.capture.contents.held import (
    CgroupContents,
    Contents,
    HeldCache,
    HeldFile,
    HeldMapping,
    HeldProcess,
)
from tracer.render.terminal import console
from tracer.render.words import contents_words
from tracer.render.words.escape import fitted, visible
from tracer.render.words.prose import prose

_LEAST_NAME_CELLS: Final = 24
_INDENT: Final = 2
_GAP: Final = 2
_MAPPINGS: Final = 2  # of a process that are shown
_ACTIVE: Final = " active: on the active list, from which reclaim takes last."
_NOTES: Final = {
    "file": "dirty: to be written before reclaim can free it. shmem is freed only with its file, or goes to "
    "swap.",
    "process": "What a process has mapped, a moment after the pass over the pages. Pages that it shares "
    "since a fork count in each process.",
    "slab": "Objects of the kernel, charged to the cgroup whose task made them.",
    "cgroup": "What is charged to a cgroup itself, without the cgroups below it. shmem is a part of cache.",
}


def lines(found: Contents, by: str | None, most: int, *, columns: int) -> Iterator[RenderableType]:
    """Yield the text of a look at `by` (`capture.contents.look.Wanted`), at most `most` rows a table."""
    yield prose(summary(found), "bold")
    if found.unnamed_bytes:
        yield prose(
            f"{units.size(found.unnamed_bytes)} of it could not be told apart: there are too many files. "
            "Give -c CGROUP."
        )
    if by is None:
        for one in found.cgroups[:most]:
            yield from _cgroup(one, columns)
        yield from _more(found.cgroups, most)
        return
    heads, rows = _of_all(found, by, most)
    if rows:
        yield Text()
        yield from _rows(heads, rows, columns)
        active = _ACTIVE if "active" in heads and any(one.active_bytes for one in found.cgroups) else ""
        yield console.note(f"{_NOTES[by]}{active}")


def summary(found: Contents) -> str:
    """Return the answer in a sentence or two."""
    whole = sum(one.bytes for one in found.cgroups)
    if not whole:
        return "No memory is charged to these cgroups."
    count = len(found.cgroups)
    cgroups = "1 cgroup holds" if count == 1 else f"{units.count(count)} cgroups hold"
    parts = ", ".join(f"{units.size(size)} {words}" for words, size in _parts(found.cgroups) if size)
    return f"{cgroups} {units.size(whole)}: {parts}. {contents_words.removed_words(found.cgroups)}".rstrip()


def _parts(cgroups: Sequence[CgroupContents]) -> Iterator[tuple[str, int]]:
    yield "anonymous", sum(one.anon_bytes for one in cgroups)
    yield "page cache of files", sum(one.file_bytes - one.shmem_bytes for one in cgroups)
    yield "shmem", sum(one.shmem_bytes for one in cgroups)
    yield "huge pages", sum(one.hugetlb_bytes for one in cgroups)
    yield "slab", sum(one.slab_bytes or 0 for one in cgroups)
    yield "other memory of the kernel", sum(one.kernel_bytes for one in cgroups)


def _more(cgroups: Sequence[CgroupContents], most: int) -> Iterator[RenderableType]:
    if rest := cgroups[most:]:
        words = "1 more cgroup" if len(rest) == 1 else f"{units.count(len(rest))} more cgroups"
        size = units.size(sum(one.bytes for one in rest))
        yield Text()
        yield prose(f"{words}: {size} (-n {len(cgroups)} shows all)", "dim")


def name_of(one: CgroupContents) -> str:
    """Return the name of a cgroup: of its container or pod, or its path."""
    known = one.container or one.cgroup
    if known is None:
        return "a removed cgroup"
    in_pod = f"{one.pod}/" if one.pod and one.container else ""
    return f"{in_pod}{known}{' (removed)' if one.removed else ''}"


def _cgroup(one: CgroupContents, columns: int) -> Iterator[RenderableType]:
    """Yield the parts of a cgroup, each with its largest files, processes or kmem_caches."""
    yield console.title(f"{visible(name_of(one))}: {units.size(one.bytes)}")
    if one.anon_bytes or one.processes:
        yield prose(f"anonymous: {units.size(one.anon_bytes)}")
        yield from _rows(_PROCESS_HEADS, map(_process_cells, one.processes or ()), columns)
    if one.file_bytes:
        yield prose(_page_cache(one))
        yield from _rows(_FILE_HEADS, map(_file_cells, one.files or ()), columns)
    if one.hugetlb_bytes:
        yield prose(f"huge pages: {units.size(one.hugetlb_bytes)}")
    if one.slab_bytes:
        yield prose(f"slab: {units.size(one.slab_bytes)}")
        yield from _rows(_SLAB_HEADS, map(_slab_cells, one.slab or ()), columns)
    if one.kernel_bytes:
        yield prose(f"other memory of the kernel: {units.size(one.kernel_bytes)} (page tables, stacks)")
    if advice := list(contents_words.advice_on(one)):
        yield console.bullets(advice)


def _page_cache(one: CgroupContents) -> str:
    marks = (
        ("dirty", one.dirty_bytes),
        ("in writeback", one.writeback_bytes),
        ("active", one.active_bytes),
        ("shmem", one.shmem_bytes),
    )
    listed = ", ".join(f"{units.size(size)} {mark}" for mark, size in marks if size)
    return f"page cache: {units.size(one.file_bytes)}{f' ({listed})' if listed else ''}"


_FILE_HEADS: Final = ("size", "dirty", "active", "file")
_PROCESS_HEADS: Final = ("size", "process")
_SLAB_HEADS: Final = ("size", "objects", "slab cache")
_NAMES: Final = ("file", "process", "slab cache", "cgroup")
_CGROUP_HEADS: Final = ("size", "anon", "cache", "shmem", "dirty", "slab", "cgroup")


def _size(value_bytes: int | None) -> str:
    return units.size(value_bytes) if value_bytes else ""


def _file_cells(one: HeldFile) -> tuple[str, ...]:
    unwritten = _size(one.dirty_bytes + one.writeback_bytes)
    return units.size(one.bytes), unwritten, _size(one.active_bytes), contents_words.file_name(one)


def _process_cells(one: HeldProcess) -> tuple[str, ...]:
    mappings = ", ".join(f"{units.size(part.bytes)} {_mapping(part)}" for part in one.mappings[:_MAPPINGS])
    return units.size(one.bytes), f"{one.comm} (pid {one.pid}): {mappings}"


def _mapping(part: HeldMapping) -> str:
    name = part.name.rpartition("/")[2]
    return f"{part.mapping} ({name})" if name else part.mapping


def _slab_cells(one: HeldCache) -> tuple[str, ...]:
    return units.size(one.bytes), units.count(one.objects), one.cache or "a cache that is gone"


def _cgroup_cells(one: CgroupContents) -> tuple[str, ...]:
    sizes = (one.anon_bytes, one.file_bytes, one.shmem_bytes, one.dirty_bytes + one.writeback_bytes)
    return units.size(one.bytes), *map(_size, sizes), _size(one.slab_bytes), name_of(one)


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]], columns: int) -> Iterator[RenderableType]:
    """Yield a table without the columns that are empty. The names, which come last, are fitted to the room:
    those of cgroups get a third of it, and others the rest."""
    listed = list(rows)
    if not listed:
        return
    shown = [at for at in range(len(heads)) if any(cells[at] for cells in listed)]
    names = [at for at in shown if heads[at] in _NAMES]
    numbers = [at for at in shown if at not in names]
    widths = [max(map(len, (heads[at], *(cells[at] for cells in listed)))) for at in numbers]
    room = columns - _INDENT - sum(width + _GAP for width in widths) - _GAP * (len(names) - 1)
    rooms = dict.fromkeys(names, max(room // len(names), _LEAST_NAME_CELLS))
    if len(names) > 1:
        longest = max(cell_len(visible(cells[names[0]])) for cells in listed)
        rooms[names[0]] = min(max(room // 3, _LEAST_NAME_CELLS), longest)
        rooms[names[1]] = max(room - rooms[names[0]], _LEAST_NAME_CELLS)
    table = console.Rows(*((heads[at], ">") for at in numbers), *((heads[at], "<") for at in names))
    for cells in listed:
        fitting = (Text(fitted(cells[at], rooms[at])) for at in names)
        table.add_row(*(cells[at] for at in numbers), *fitting)
    yield console.indented(table)


def _of_all(found: Contents, by: str, most: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads of the table of one kind, and its rows, the largest first."""
    if by == "cgroup":
        return _CGROUP_HEADS, [_cgroup_cells(one) for one in found.cgroups[:most]]
    heads, cells_of, things_of = _KINDS[by]
    every = [(thing, one) for one in found.cgroups for thing in things_of(one) or ()]
    every.sort(key=lambda pair: -pair[0].bytes)
    rows = []
    for thing, one in every[:most]:
        *cells, name = cells_of(thing)
        rows.append((*cells, name_of(one), name))
    return (*heads[:-1], "cgroup", heads[-1]), rows


_KINDS: Final[dict[str, Any]] = {
    "file": (_FILE_HEADS, _file_cells, lambda one: one.files),
    "process": (_PROCESS_HEADS, _process_cells, lambda one: one.processes),
    "slab": (_SLAB_HEADS, _slab_cells, lambda one: one.slab),
}
