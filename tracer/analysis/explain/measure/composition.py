"""Composition: the parts of a cgroup's usage at the instant of a kill, as `tracer.usage_parts` defines them.

For a limit owner with children, `zswap` and `hugetlb` are those of its last sample before the kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from tracer.analysis.core.columns import optional
from tracer.analysis.core.ledger import level, reading
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, unrecorded_categories
from tracer.analysis.results.memory import Composition
from tracer.analysis.results.quality import Unknown
from tracer.categories import COUNTERS, PARTS
from tracer.enumerations import CATEGORY
from tracer.schema import MEMORY_STAT_BYTES
from tracer.usage_parts import usage_parts

_LEDGER: Final = ("charge", "samples")
_STEADY: Final = ("zswap", "hugetlb")
_LEAST_HUGE_PAGE: Final = {"x86_64": 2 << 20, "aarch64": 64 << 10}  # HPAGE_SIZE, CONT_PTE_SIZE
_HUGETLB_OPTION: Final = "memory_hugetlb_accounting"
_NO_SAMPLE: Final = "the kernel program took no sample of this counter at the kill"
_NOT_FOUND: Final = "the recorder found no counter of it in this kernel"


Origins = dict[str, tuple[str, ...]]
"""Name of a size of memory.stat -> the tables that it is from; empty for a 0 that follows from the kernel."""


def at_kill(
    subtree: Subtree,
    kill_ns: int,
    sample: Mapping[str, Any] | None,
    total: int | None,
    *,
    is_logged: bool,
    origins: Mapping[str, str],
) -> tuple[dict[str, int | None], Origins]:
    """Return the sizes of memory.stat (`schema.MEMORY_STAT_BYTES`) at the kill, in bytes, and their tables:
    the kernel's own `oom` sample, else the start sample plus the ledger. None: not known.

    `origins` are the tables of what is not the sample's own (`kernel_log.merging.Origins`).

    `is_logged`: the sample is from the kernel log. Its memory.stat lags where the limit owner has children
    (seen on 6.18: 19 of 31 MiB), and the ledger may lack the last 10 ms. The page counter `total` does not
    lag: the one of the two that explains more of it is taken.

    A 0 of a category that was not recorded is not known: the kernel may print 0 for what it does not count.
    """
    read = {name: None if sample is None else optional(sample[f"{name}_bytes"]) for name in MEMORY_STAT_BYTES}
    wanted = [name for name in CATEGORY.names if is_logged or read[name] is None]
    levels = {name: level(subtree, {name: 1}) for name in wanted}
    counted = {name: steps.at(kill_ns) for name, steps in levels.items() if steps is not None}
    added = {name: size for name, size in counted.items() if read[name] is None}
    if is_logged and _unexplained(read | counted, total) < _unexplained(read | added, total):
        added = counted
    sizes = read | added
    tables: Origins = {name: (origins.get(name, "samples"),) for name in sizes} | dict.fromkeys(
        added, _LEDGER
    )
    sizes |= {name: sizes[name] or None for name in sizes.keys() & unrecorded_categories(subtree.whole)}
    for name in _STEADY:
        if sizes[name] is None:
            sizes[name] = _last_read(subtree, name, kill_ns)
            tables[name] = ("samples",) if sizes[name] else ()
    if sizes["hugetlb"] is None and not _has_room_for_huge_page(subtree, sizes, total):
        sizes["hugetlb"], tables["hugetlb"] = 0, ()
    return sizes, tables


def origins_of_parts(
    sizes: Mapping[str, int | None], tables: Mapping[str, tuple[str, ...]], usage_table: str
) -> Mapping[str, tuple[str, ...]]:
    """Return the tables that each part of the composition is from, and `usage` itself.

    A part is from a table if it would be another without the sizes from there. `other` is from all of them.
    `kernel`, `zswap_incomp` and an `unevictable` that is no part are the counters of these names.
    """
    whole, _ = usage_parts(sizes, None, lambda _: "")
    found: dict[str, list[str]] = {name: [] for name in whole}
    for origin in dict.fromkeys(tables.values()):
        rest = {name: None if tables[name] == origin else size for name, size in sizes.items()}
        without, _ = usage_parts(rest, None, lambda _: "")
        for name in whole:
            found[name] += origin if without[name] != whole[name] else ()
    every = [usage_table, *chain(*found.values())]
    found |= {"usage": [usage_table], "other": every}
    found["unevictable"] += () if whole["unevictable"] is not None else tables["unevictable"]
    counted = [part.name for part in PARTS if part.phrase]
    whole_kernel = [tables["kernel"], found["sock"]]
    found["zswap_incomp"] = list(tables["zswap_incomp"])
    found["kernel"] = list(chain(*(whole_kernel if sizes["kernel"] else (found[name] for name in counted))))
    return {name: tuple(dict.fromkeys(names)) for name, names in found.items()}


def _unexplained(sizes: Mapping[str, int | None], total: int | None) -> int:
    """Return by how much the parts of usage differ from usage."""
    return abs((total or 0) - sum(sizes[counter.name] or 0 for counter in COUNTERS if counter.is_in_usage))


def _has_room_for_huge_page(subtree: Subtree, sizes: Mapping[str, int | None], total: int | None) -> bool:
    """Return whether all other memory leaves room for one huge page in usage."""
    others = [sizes[counter.name] for counter in COUNTERS if counter.is_in_usage]
    if total is None or None in others:
        return True
    least = _LEAST_HUGE_PAGE.get(subtree.whole.meta.get("architecture", ""), 0)
    return total - sum(size or 0 for size in others) >= least


def _last_read(subtree: Subtree, name: str, kill_ns: int) -> int | None:
    """Return a size that no ledger counts, by the owner's last sample before the kill."""
    meta = subtree.whole.meta
    if meta.get("cgroup_version") == 1:
        return 0  # v1 charges neither
    options = meta.get("cgroup_mount_options")
    if name == "hugetlb" and options is not None and _HUGETLB_OPTION not in options:
        return 0
    return reading(subtree, f"{name}_bytes").at(kill_ns)


def why_not(trace: TraceTables, name: str) -> str:
    """Return why the size of a name is not known at a kill."""
    return _NOT_FOUND if name in unrecorded_categories(trace) else _NO_SAMPLE


def compose(
    sizes: Mapping[str, int | None], total: int | None, absent: Callable[[str], str] = lambda _: _NO_SAMPLE
) -> tuple[Composition, Unknown]:
    """Return the parts, which add up to `total`, the usage in bytes, and why any of them is null. `absent`
    gives the reason for a size that is not known."""
    parts, unknown = usage_parts(sizes, total, absent)
    return Composition(**parts, total=total), {f"composition.{name}": why for name, why in unknown.items()}


def locked_cache(sizes: Mapping[str, int | None], made_of: Composition) -> int | None:
    """Return the page cache with a file behind it that is unevictable, in bytes; None if it is not known."""
    cache = (made_of.file_clean, made_of.file_dirty, made_of.writeback)
    file, shmem = sizes.get("file"), sizes.get("shmem")
    if file is None or shmem is None or made_of.unevictable is None or None in cache:
        return None
    return max(file - shmem - sum(part or 0 for part in cache), 0)


def locked_in_unknown(sizes: Mapping[str, int | None], made_of: Composition) -> int:
    """Return the unevictable memory that is inside other parts, since its kind is not known, in bytes."""
    return (sizes.get("unevictable") or 0) if made_of.unevictable is None else 0


def working_set(sizes: Mapping[str, int | None], total: int | None, unknown: Unknown) -> int | None:
    """Return usage without the inactive file list, at least 0, in bytes: the working set of kubelet and
    cAdvisor."""
    inactive_file = sizes["inactive_file"]
    if total is None or inactive_file is None:
        unknown["working_set_bytes"] = "inactive_file was not known at the instant of the kill"
        return None
    return max(total - inactive_file, 0)
