"""Advice on a kill: sentences to act on, as far as the evidence shows, and those of a range of limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tracer.analysis.core.columns import utc_time
from tracer.analysis.explain import runtimes
from tracer.analysis.explain.cause_record import CauseRecord, Grown
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence import contributing
from tracer.analysis.explain.evidence.contributing import company, crowd
from tracer.analysis.explain.measure import composition, shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.measure.growth import growth_span_s
from tracer.analysis.explain.runtimes import MUCH_SHARE
from tracer.analysis.explain.sizing.kill_range import Ground, LimitAtKill, Range
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.explain.words.sentence_parts import owner_name, process, time_before
from tracer.analysis.results.kill import Cause, Sizing
from tracer.analysis.results.memory import GrownCode, name_without_number
from tracer.analysis.views.grown_functions import is_of_collector
from tracer.kernel.cgroups.containers import identify, qos_class
from tracer.schema import UNLIMITED_BYTES
from tracer.units import coarse_duration, count, duration, size, the

_STEP_BYTES: Final = 100 << 20

_GROUNDS: Final[Mapping[str, str]] = {
    "mapped": (
        "The killed processes had {untouched_bytes} mapped that they had not touched; what they would have "
        "mapped after that is not known."
    ),
    "files_have_a_size": (
        "The files of the shared memory have a size, and {left_bytes} of them was not touched; further files "
        "would need more."
    ),
    "shared_since_a_fork": (
        "Processes shared {shared_bytes} since a fork, which is copied when it is written."
    ),
    "room_for_cache": "The upper end has room for {cache_bytes} of page cache, since some was read again.",
    "limit_before_unknown": (
        "A limit must be above what was in use: reclaim could not free {kept_bytes} of it."
    ),
    "limit_before": (
        "The limit of {before_bytes} was enough until it was lowered; reclaim could not free {kept_bytes} of "
        "what was in use."
    ),
    "low": "Below {low_bytes}, memory that cannot be reclaimed does not fit.",
    "low_with_swap": (
        "Below {low_bytes}, memory that cannot be reclaimed does not fit beside {swap_bytes} of swap."
    ),
    "nothing_evicted": "Usage was at most {usage_bytes}, and no page cache had to be evicted.",
    "nothing_read_again": (
        "Usage was at most {usage_bytes}, and (nearly) no page cache that was evicted had to be read again."
    ),
    "read_again": (
        "Usage was at most {usage_bytes}. Of the {again_bytes} of page cache that was read again, "
        "{extra_bytes} more memory would have kept nearly all, and {lists_bytes} is room for the kernel's "
        "choice of pages."
    ),
    "evicted_late": "Another {late_bytes} is room for files that were written shortly before.",
    "all_fits": (
        "All that it ever held at once or read is {all_bytes}. In all, {again_bytes} of page cache was read "
        "again."
    ),
    "read_around": "With more room, page faults may read {around_bytes} around the pages that they need.",
    "slowed_down": "memory.high slowed it down: set that no lower than the upper end either.",
    "hits_not_traced": (
        "Whether less than this upper end would do is not known: only evictions are traced, not hits."
    ),
    "room_for_peaks": (
        "The upper end has room for {apart_bytes}, with which the peaks of concurrent processes or threads "
        "could fall together."
    ),
    "reclaim_cost": "At the upper end, reclaim still costs about {cost_share} of the tasks' time.",
}
"""Kind of ground -> its sentence. Numbers are formatted by the units in their names."""


def sized(found: Range, *, kills: int = 0) -> Sizing:
    """Return a range with its sentences; if there is one, it is for so many kills."""
    pace = "" if found.pace is None else _PACES[found.pace.kind](found.pace.numbers)
    kills = 0 if found.limits_bytes is None else kills
    return Sizing(found.limits_bytes, tuple(map(_sentence, found.basis)), pace, found.outcomes, kills)


def for_all_kills(count: int) -> str:
    """Return the sentence on a range that is for several kills."""
    return f"The range is for all {count} kills for this limit: each one freed memory for the work after it."


def _sentence(ground: Ground) -> str:
    words = {
        name: size(value) if name.endswith("_bytes") else f"{100 * value:.0f} %"
        for name, value in ground.numbers.items()
    }
    return _GROUNDS[ground.kind].format(**words)


def _grown(it: Mapping[str, Any]) -> str:
    """Return `40 MiB in 3 s, without 1 s in which tasks hardly ran`."""
    lost = f", without {duration(it['lost_s'])} in which {_LOST[it['lost_to']]}" if it["lost_s"] else ""
    return f"{size(it['grown_bytes'])} in {coarse_duration(it['span_s'], it['resolution_s'])}{lost}"


_LOST: Final = {
    "thrashing": "tasks hardly ran",
    "oom_disabled": "tasks waited with the OOM killer disabled",
    "pause": "next to nothing grew",
}


def _growth(it: Mapping[str, Any]) -> str:
    share = _STEP_BYTES / it["grown_bytes"]
    buys = coarse_duration(share * it["span_s"], share * it["resolution_s"])
    return f"At this growth ({_grown(it)}), each extra {size(_STEP_BYTES)} of limit buys {buys}."


def _growth_in_files(it: Mapping[str, Any]) -> str:
    return (
        f"Memory grew by {_grown(it)}, most of it in shared memory whose files have a size: "
        f"{size(it['left_bytes'])} of them was not touched."
    )


_PACES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "growth": _growth,
    "growth_in_files": _growth_in_files,
}


_GROWN: Final[Mapping[Grown, str]] = {
    "anon": "anonymous memory",
    "shmem": "shared memory",
    "file": "page cache",
    "kernel": "kernel memory",
}
_ON_PANIC: Final = "Set vm.panic_on_oom to 0, so that the kernel kills a process instead of panicking."


def advise(findings: Findings, cause: Cause) -> tuple[str, ...]:
    """Return sentences to act on: on runtimes, on the cause, then on processes, then on cgroups.

    A writer that left shared memory behind comes before all of these. Empty where the cause has no cure. If
    the limit was lowered below usage, or if the victim of the kill before was still freeing its memory, the
    advice is on that alone, whatever filled the limit.
    """
    shortage = findings.circumstances.shortage
    if shortage is not None and (instead := sentence_parts.shortage_advice(shortage)):
        return instead
    if composition.is_limit_lowered(findings):
        return tuple(_raise_again(findings))
    if composition.freeing_bytes(findings) and findings.previous is not None:
        before = f"Look at kill {findings.previous.kill_id} first"
        return (f"{before}: once the memory of its victim had been free, this request would have had room.",)
    panic = (_ON_PANIC,) if findings.circumstances.no_victim == "panic_on_oom" else ()
    of_cause = CAUSES[cause]
    cures = (*panic, *WORDS[cause].cure(findings))
    if not cures:
        return ()
    left_behind = _left_behind(findings) if "ended_writer" in of_cause.concerns else None
    first = () if left_behind is None else (left_behind,)
    of_mappings = _within_processes(findings) if "anon" in of_cause.grows else ()
    return (*first, *of_mappings, *cures, *_who(findings, of_cause), *_where(findings), *_high(findings))


def settings(findings: Findings, cause: Cause) -> Iterator[str]:
    """Yield a sentence for each setting that cures the kill where a greater limit does not.

    There are none for a kill from a kernel log, which shows no window.
    """
    kill, yielded = LimitAtKill.from_findings(findings), WORDS[cause].settings
    is_lowered = composition.is_limit_lowered(findings)
    if kill is not None and yielded is not None and findings.window is not None and not is_lowered:
        yield from yielded(findings, kill.limit_bytes - kill.kept_bytes)


def _high(findings: Findings) -> Iterator[str]:
    it = contributing.throttled(findings)
    if it is not None and it.high is not None:
        of = "" if it.high.high_bytes is None else f" of {size(it.high.high_bytes)}"
        yield f"Raise the {it.high.file}{of} with the limit, or remove it: above it, tasks are throttled."


def _raise_again(findings: Findings) -> Iterator[str]:
    """Yield advice on a limit that was lowered below usage."""
    lowered, owner = findings.owner.lowered, findings.owner
    before = None if lowered is None else lowered.limit_bytes
    is_known = before is not None and before < UNLIMITED_BYTES
    back = f"back to {size(before)}, which was enough, or " if is_known else ""
    usage_bytes = None if lowered is None else lowered.usage_bytes
    in_use = "what" if usage_bytes is None else f"the {size(usage_bytes)} that"
    to = "" if owner.limit_bytes is None else f" to {size(owner.limit_bytes)}"
    yield f"Set the limit of {owner_name(owner)} {back}above {in_use} was in use when it was lowered{to}."
    yield (
        "A limit below usage kills where reclaim cannot free the difference. Lower memory.high first, or "
        "write to memory.reclaim, which never kill, and lower the limit once usage is below it. Or restart "
        "the process with the lower limit (Kubernetes: resizePolicy RestartContainer)."
    )


def _who(findings: Findings, cause: CauseRecord) -> Iterator[str]:
    """Yield the processes to look at."""
    many = crowd(findings)
    if many is not None:
        yield (
            f"Find what starts so many processes ({count(many[0])}), and bound their number (pids.max): "
            f"the largest held only {size(many[1])}."
        )
        return
    alike = company(findings) if "same_command" in cause.concerns else None
    if alike is not None:
        yield (
            f"Run fewer {alike.comm} processes at a time, or leave room for all: {count(alike.processes)} of "
            f"them held {size(alike.held_bytes)} together, at most {size(alike.largest_bytes)} each."
        )
        return
    copied = _copied(findings) if "cow" in cause.concerns else None
    if copied is not None:
        yield copied
        return
    grew = contributing.who_grew(findings, cause.grows)
    if grew is None and "ended_writer" in cause.concerns:  # memory beside that which was left behind
        grew = contributing.who_grew(findings, ("anon",))
    if grew is None or findings.window is None:
        return
    one, name = grew.process, process(grew.process.comm, grew.process.tgid)
    window = findings.window
    span = time_before(utc_time(window.end), utc_time(window.begin), findings.thinned)
    if grew.kind != "file":
        span = coarse_duration(*growth_span_s(findings, grew.bytes_))
    charged = f"it charged {size(grew.bytes_)} of {_GROWN[grew.kind]} in {the(span)} before the kill"
    if one.exited is not None:
        yield f"Look at {name}, although it had ended: {charged}, which outlived it."
        return
    code = _code_of(findings, grew)
    sampled = f"{code.frames[0]}, {_share(code)}, in " if code else ""
    reused = runtimes.reused_bytes(findings, grew.process.tgid) if code and grew.kind == "anon" else 0
    earlier = (
        f" Before the kill, malloc had {size(reused)} free to hand out again. Such memory counts for the "
        "code that took it first; other code may hold it."
    )
    yield f"Look for growth in {sampled}{name}: {charged}.{earlier if reused else ''}"
    if one.tgid not in findings.victim_tgids:
        killed = ", ".join(process(victim.comm, victim.pid) for victim in findings.victims)
        yield f"Do not look only at the killed process, {killed}: it charged less of that."


def _code_of(findings: Findings, grew: contributing.Grew) -> GrownCode | None:
    """Return the code of a process that made most of a kind of memory grow; None if none is known.

    Code whose share may be zero, since much was freed again, is not known to have made it grow. Garbage
    collectors move objects, so their samples do not show the code that made them: in Java, threads of the
    collector do so.
    """
    it = grew.process
    for one in findings.code:
        name, its = (name_without_number(comm or "") for comm in (one.process.comm, it.comm))
        is_its = one.process.pid == it.tgid or (one.process.pid is None and name == its)
        is_named = bool(one.frames) and not one.frames[0].function.startswith("[")
        is_certain = one.share > one.share_error
        is_maker = one.language != "java" and not is_of_collector(one)
        if is_its and is_named and is_certain and one.of == grew.kind and is_maker:
            return one
    return None


def _share(code: GrownCode) -> str:
    return f"{100 * code.share:.0f} % of the sampled growth"


def _left_behind(findings: Findings) -> str | None:
    """Return a sentence on the writer of shared memory that had ended."""
    writer, left = findings.circumstances.ended_writer, shared_memory.left_behind_bytes(findings)
    if writer is None or left * 100 <= (findings.composition.total or 0):
        return None
    name, before = process(writer.comm, writer.pid), duration(writer.ended_ns / 1e9)
    return (
        f"{name} was charged for {size(left)} of the shared memory, and ended {before} before the kill: "
        "that memory outlived it."
    )


def _copied(findings: Findings) -> str | None:
    """Return advice on a fork, if most of the growth of anonymous memory was copies of shared pages."""
    fork, shared = findings.circumstances.fork, shared_memory.shared_by_fork_bytes(findings)
    if fork is None or shared is None or contributing.copy_on_write(findings) is None:
        return None
    if 2 * fork.copied_bytes < findings.circumstances.grown_bytes.get("anon", 0):
        return None
    parent, child = process(fork.parent_comm, fork.parent_pid), process(fork.child_comm, fork.child_pid)
    who, since = f"{parent} and its child {child}", "since a fork"
    end = "write less while the child lives, or avoid the fork"
    if fork.children > 1:
        who, since = f"{parent} and its {count(fork.children)} children", f"since their forks, {child}"
        end = "write less while the children live, or fork fewer"
    return (
        f"Memory was copied, and need not have grown: {who} share memory {since} "
        f"{duration(fork.age_ns / 1e9)} before, and each page that one of them writes to is copied. Leave "
        f"room for the {size(shared)} that was still shared, {end}."
    )


def _within_processes(findings: Findings) -> Iterator[str]:
    """Yield advice on killed processes by what their memory was used for, as seen before the kill."""
    total = findings.composition.total or 0
    for one in findings.mappings:
        if one.pid not in findings.victim_tgids:
            continue
        name = process(one.comm, one.pid)
        yield from runtimes.advice(findings, one, name)
        stack_bytes = one.anon_bytes("stack")
        if stack_bytes > MUCH_SHARE * total and one.threads:
            yield f"Run fewer threads in {name}: the stacks of {count(one.threads)} held {size(stack_bytes)}."


def _where(findings: Findings) -> Iterator[str]:
    """Yield the cgroups to look at."""
    path = findings.owner.cgroup or ""
    ref = identify(path)
    if ref is not None and ref.container_id is None and qos_class(path) is not None:
        yield (
            "The limit is the pod's, not a container's: spec.resources of the pod (Kubernetes 1.34), or else "
            "the sum of the limits of its containers. All of them share it: look at each."
        )
    elif findings.owner.is_ancestor:
        yield "The limit belongs to an ancestor, and all cgroups below share it: look at its other children."
