"""What can be done about a kill, as far as the evidence goes; nothing for an unknown cause as a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tracer.analysis.explain.causes import registry
from tracer.analysis.explain.evidence.contributing import crowd
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.wording import owner_name, process
from tracer.analysis.results.conclusions import Cause, Verdict
from tracer.units import count, duration, size


def advise(findings: Findings, verdict: Verdict) -> tuple[str, ...]:
    """Sentences that can be acted on: first the cause, then who, then where."""
    shortage = findings.circumstances.shortage
    if shortage is not None and shortage.advice:
        return shortage.advice
    if verdict.cause == "unknown":
        return ()
    return (*_CURES[verdict.cause](findings), *_who(findings), *_where(findings))


def _anon_growth(findings: Findings) -> Iterator[str]:
    yield (
        f"Raise the limit above {size(findings.owner.limit_bytes)}, or make what runs there need less "
        f"memory: only swap could have taken its {size(findings.composition.anon)} of anonymous memory."
    )


def _shmem(findings: Findings) -> Iterator[str]:
    yield (
        f"Look for files on tmpfs (/dev/shm, /tmp, emptyDir in memory), memfd and shared mappings: they hold "
        f"{size(findings.composition.shmem)} until they are deleted."
    )
    yield "Bound a tmpfs by its own limit (size= at mount, --shm-size, emptyDir.sizeLimit), below this one."


def _unevictable(findings: Findings) -> Iterator[str]:
    yield (
        "Find what locks memory (mlock, MAP_LOCKED, SHM_LOCK) or writes to a ramfs: "
        f"{size(findings.composition.unevictable)} can neither be dropped nor swapped. Lock less "
        "(RLIMIT_MEMLOCK bounds it), use tmpfs instead of ramfs, or raise the limit by that much."
    )


def _kernel_memory(findings: Findings) -> Iterator[str]:
    part, held = registry.largest_kernel_part(findings)
    yield (
        f"Look for what makes the kernel hold {size(held)} as {part}: the processes' own memory is not the "
        "problem, and their RSS does not show it."
    )
    yield from (cure for start, cure in _KERNEL_CURES.items() if part.startswith(start))


_KERNEL_CURES: Final = {
    "slab": "Slab grows with open files, sockets, pipes, message queues, names of many files: count those.",
    "page": "Page tables grow with what is mapped and touched here and there: huge pages need far fewer.",
    "socket": "Bound what is queued in sockets (SO_RCVBUF, SO_SNDBUF, net.ipv4.tcp_mem), or read it sooner.",
    "kernel stacks": "Kernel stacks grow with threads: count those.",
    "whole": (
        "Pipes and Unix sockets keep what was written and not yet read in such pages: see how many there "
        "are, who reads too late, and which function of the kernel asked."
    ),
}
"""How the largest part (`causes.largest_kernel_part`) begins -> what to look for."""


def _dirty_writeback(findings: Findings) -> Iterator[str]:
    unwritten = size(registry.unwritten_bytes(findings.composition))
    yield (
        f"Have data written sooner, so that less than {unwritten} waits for the disk: fsync or "
        "sync_file_range every few MiB, direct I/O for bulk writes, or smaller vm.dirty_background_bytes."
    )
    yield (
        "On cgroup v2, set memory.high some way below the limit: writers are then slowed down before the "
        "limit, instead of killed at it."
    )


def _gfp_constrained(_: Findings) -> Iterator[str]:
    yield (
        "Leave more room below the limit: this request of the kernel could not free what others could have "
        "freed. With memory.high below the limit (cgroup v2), reclaim begins earlier."
    )


def _swap_exhausted(findings: Findings) -> Iterator[str]:
    yield (
        f"Give {owner_name(findings.owner)} more swap (memory.swap.max, memory.memsw.limit_in_bytes) or a "
        "higher limit, or make what runs there need less: with swap full, process memory cannot be reclaimed."
    )


def _protected_cache(findings: Findings) -> Iterator[str]:
    yield (
        f"Lower memory.min of the cgroups below {owner_name(findings.owner)}, or raise its limit: "
        f"{size(findings.circumstances.protected_bytes)} are protected from any reclaim."
    )


def _global_pressure(_: Findings) -> Iterator[str]:
    yield "No cgroup's limit was hit: look for what filled the machine (or the NUMA nodes that were allowed)."
    yield "Set limits whose sum the machine has, so that a growing cgroup hits its own limit first."


_CURES: Final[dict[Cause, Callable[[Findings], Iterator[str]]]] = {
    "anon_growth": _anon_growth,
    "shmem": _shmem,
    "unevictable": _unevictable,
    "kernel_memory": _kernel_memory,
    "dirty_writeback": _dirty_writeback,
    "gfp_constrained": _gfp_constrained,
    "swap_exhausted": _swap_exhausted,
    "protected_cache": _protected_cache,
    "global_pressure": _global_pressure,
}


def _who(findings: Findings) -> Iterator[str]:
    top = findings.allocators[0] if findings.allocators else None
    many = crowd(findings)
    if many is not None:
        yield (
            f"Look for what starts so many processes ({count(many[0])}), and bound their number (pids.max): "
            f"the largest held {size(many[1])} only."
        )
        return
    if top is None or findings.window is None:
        return
    span = duration((findings.window.end - findings.window.begin) / 1e9)
    charged = f"it charged {size(top.charged_bytes)} in the {span} before the kill"
    yield f"Look for growth in {process(top.comm, top.tgid)}: {charged}."
    if top.tgid not in findings.victim_tgids:
        killed = ", ".join(process(victim.comm, victim.pid) for victim in findings.victims)
        yield f"Do not look only at the killed process, {killed}: it charged less than that."


def _where(findings: Findings) -> Iterator[str]:
    if findings.owner.is_ancestor:
        yield "The limit is an ancestor's, and all cgroups below it share it: look at its other children too."
