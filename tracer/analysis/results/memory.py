"""What a cgroup's memory was made of, what its page cache gave back, and who allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # lab's names do not need it
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Composition:
    """What usage was made of at the kill, in bytes. The classes are disjoint; how:
    `analysis.explain.measure.composition`.

    The known classes and `other` add up to `total` exactly, and `total` is the page counter's usage.
    """

    anon: int | None
    file_clean: int | None
    file_dirty: int | None
    writeback: int | None
    shmem: int | None
    unevictable: int | None
    slab_reclaimable: int | None
    slab_unreclaimable: int | None
    kernel_stack: int | None
    page_tables: int | None
    sock: int | None
    percpu: int | None
    vmalloc: int | None
    other: int | None
    total: int | None

    def parts(self) -> Iterator[tuple[str, int | None]]:
        """(class, bytes) of every class, `other` last, without `total`."""
        for part in COMPOSITION_PARTS:
            yield part, getattr(self, part)


COMPOSITION_PARTS: Final = tuple(item.name for item in fields(Composition) if item.name != "total")


@dataclass(frozen=True, slots=True)
class Cushion:
    """The page cache as the cushion between the limit and the kill; definitions:
    `analysis.explain.measure.cushion`.
    """

    cache_start_bytes: int | None
    cache_end_bytes: int | None
    evicted_bytes: int | None
    absorbed_bytes: int | None
    exhausted_at: pd.Timestamp | None
    refaulted_bytes: int | None


@dataclass(frozen=True, slots=True)
class ChargedStack:
    """Where `sampled_bytes` were charged, of the `of_bytes` that were sampled of a process: functions,
    innermost first, of its own code (`user`) and of the kernel below it; None where no stack could be taken.
    """

    user: tuple[str, ...] | None
    kernel: tuple[str, ...] | None
    sampled_bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True)
class Allocator:
    """A process and the memory it charged in the window, net of what it gave back. `stack`: by which it
    charged most of it; None where stacks were not asked for, or none was sampled of it.
    """

    tgid: int
    comm: str | None
    charged_bytes: int
    stack: ChargedStack | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class FurtherAllocators:
    """Those that charged less than the ones in `OomReport.allocators`: how many, and what they charged."""

    processes: int
    charged_bytes: int
