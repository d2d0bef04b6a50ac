"""The answer of `fleet` in sentences, and the kills of all hosts together, for the text and the page. All
names in them are escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.results.memory import CodeFrame
from tracer.fleet.reduction.fleet_answer import (
    Evictor,
    Fleet,
    GrownFunction,
    KillCount,
    SigkillCount,
    Workload,
)
from tracer.fleet.sizing.replays import Replayed
from tracer.render.fleet import limit_states
from tracer.render.words import code_facts
from tracer.render.words.escape import fitted, visible
from tracer.render.words.prose import Fact


@dataclass(frozen=True, slots=True)
class KillGroup:
    """The kills of one workload for one cause."""

    cause: str
    workload: str
    hosts: int
    count: int
    last: pd.Timestamp


def by_cause_and_workload(kills: Iterable[KillCount]) -> list[KillGroup]:
    """Return the groups, the most kills first."""
    groups: dict[tuple[str, str], list[KillCount]] = {}
    for one in kills:
        groups.setdefault((one.cause, one.workload), []).append(one)
    found = [
        KillGroup(cause, name, len(group), sum(one.count for one in group), max(one.last for one in group))
        for (cause, name), group in groups.items()
    ]
    return sorted(found, key=lambda one: (-one.count, one.cause, one.workload))


@dataclass(frozen=True, slots=True)
class SigkillGroup:
    """The processes of one workload that one sender ended by SIGKILL. A sender of None is the kernel."""

    sender: str | None
    workload: str
    hosts: int
    count: int
    last: pd.Timestamp


def by_sender_and_workload(sigkills: Iterable[SigkillCount]) -> list[SigkillGroup]:
    """Return the groups, the most processes first."""
    groups: dict[tuple[str | None, str], list[SigkillCount]] = {}
    for one in sigkills:
        groups.setdefault((one.sender, one.workload), []).append(one)
    found = [
        SigkillGroup(
            sender, name, len(group), sum(one.count for one in group), max(one.last for one in group)
        )
        for (sender, name), group in groups.items()
    ]
    return sorted(found, key=lambda one: (-one.count, one.sender or "", one.workload))


_MOST_NAMED: Final = 3
_MOST_CAUSES: Final = 5
_NAME_CELLS: Final = 48
_HELD_BACK: Final[Mapping[str, str]] = {
    "throttled": "were slowed down by memory.high",
    "thrashing": "read the same page cache again and again",
    "cut": "were cut short",
    "failed": "failed",
    "growing": "were still growing at the end of the trace",
}
_LABELS: Final[Mapping[str, str]] = {name: words.label for name, words in WORDS.items()}


def sentence(fleet: Fleet) -> str:
    """Return the answer in one or two sentences."""
    if not fleet.traces:
        return "No trace has anything of that time."
    total = sum(one.count for one in fleet.kills)
    where = f"{counted(fleet.traces, 'trace')} of {counted(len(fleet.hosts), 'host')}"
    if not total:
        return f"There is no kill in {where}."
    killed = {one.workload for one in fleet.kills}
    on_hosts = len({one.host for one in fleet.kills})
    said = f"{counted(total, 'kill')} of {counted(len(killed), 'workload')} on {counted(on_hosts, 'host')}"
    most, first = "", by_cause_and_workload(fleet.kills)[0]
    if 1 < first.count < total:
        times = units.count(first.count)
        most = f" Most often: {visible(first.workload)}, {times} times ({visible(first.cause)})."
    return f"{said}, in {where}.{most}"


def facts(fleet: Fleet) -> Iterator[Fact]:
    """Yield the reasons of the kills, the wrong limits, the evictors, and the data behind the answer."""
    causes: Counter[str] = Counter()
    for one in fleet.kills:
        causes[one.cause] += one.count
    if causes:
        most_first = sorted(causes, key=lambda name: (-causes[name], name))
        yield "causes", _listed([_cause(name, causes[name]) for name in most_first], _MOST_CAUSES, "; ")
    if fleet.code:
        yield "what grew", _listed([_grown(one) for one in fleet.code], between="; ")
    yield from _sigkills(fleet)
    yield from _limits(fleet.workloads)
    yield from _evictions(fleet)
    if window := _window(fleet):
        yield "asked for", window
    if fleet.begin is not None and fleet.end is not None:
        yield "recorded", f"from {minute(fleet.begin)} to {minute(fleet.end)} UTC"


def warnings(fleet: Fleet) -> Iterator[Fact]:
    """Yield the missing and the doubtful parts of the answer."""
    if lossy := [host for host in fleet.hosts if host.lost_records]:
        lost = counted(sum(host.lost_records or 0 for host in lossy), "record")
        yield (
            "lost",
            f"{lost} on {counted(len(lossy), 'host')}: amounts of page cache may be too low, and "
            "peaks as well",
        )
    if uncounted := sum(host.uncounted_traces for host in fleet.hosts):
        yield "interrupted", f"{counted(uncounted, 'trace')}, of which it is not known what was lost"
    if repeated := fleet.perhaps_repeated_kills:
        yield (
            "recorders",
            f"{repeated:,} of the kills may be {'a repetition' if repeated == 1 else 'repetitions'}, seen by "
            "another recorder; older traces lack the start of the victim",
        )
    if shared := [host for host in fleet.hosts if host.machines > 1]:
        names = [f"{_short(host.host)} (at least {host.machines})" for host in shared]
        yield "names", f"more than one machine is called {_listed(names)}"
    unread = sum(not one.is_partial for one in fleet.broken)
    if unread:
        yield "left out", f"{counted(unread, 'trace')} that cannot be read, listed at the end"
    if in_part := len(fleet.broken) - unread:
        yield "in part", f"{counted(in_part, 'trace')} of which a part is left out, listed at the end"


def evicted_by_others(fleet: Fleet) -> int:
    """Return the bytes of page cache that tasks of other workloads evicted."""
    return sum(one.evicted_bytes or 0 for one in fleet.evictors if not is_its_own(one))


def is_its_own(one: Evictor) -> bool:
    """Return whether the tasks belong to the workload to which the page cache was charged."""
    return one.owner_workload == one.evictor_workload


def _window(fleet: Fleet) -> str:
    """Return the range of time that was asked for; empty if no range was given."""
    ends = {"from": fleet.since, "until": fleet.until}
    said = " ".join(f"{word} {minute(time)}" for word, time in ends.items() if time is not None)
    return f"{said} UTC" if said else ""


def minute(time: pd.Timestamp) -> str:
    """Return `2026-11-27 10:59`."""
    return f"{time:%Y-%m-%d %H:%M}"


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return `1 host` or `1,203 hosts`."""
    return f"1 {noun}" if count == 1 else f"{units.count(count)} {nouns or f'{noun}s'}"


def function(one: GrownFunction) -> str:
    """Return a function with its file and line, or its module."""
    return code_facts.frame(CodeFrame(one.function, one.file, one.line, one.module))


def _grown(one: GrownFunction) -> str:
    return f"{function(one)}: {counted(one.count, 'kill')} on {counted(one.hosts, 'host')}"


def _cause(name: str, count: int) -> str:
    label = f" ({_LABELS[name]})" if name in _LABELS else ""
    return f"{units.count(count)} {visible(name)}{label}"


def _sigkills(fleet: Fleet) -> Iterator[Fact]:
    senders: Counter[str | None] = Counter()
    for one in fleet.sigkills or ():
        senders[one.sender] += one.count
    if not senders:
        return
    most_first = sorted(senders, key=lambda name: (-senders[name], name or ""))
    named = _listed([f"{sender_name(one)} {units.count(senders[one])}" for one in most_first])
    unknown = fleet.traces_without_sigkills
    older = f"; not known of {counted(unknown, 'older trace')}" if unknown else ""
    number = counted(sum(senders.values()), "process", "processes")
    yield "SIGKILL", f"{number} ended by others than the OOM killer: {named}{older}"


def sender_name(sender: str | None) -> str:
    """Return the name of a sender of SIGKILL, escaped."""
    return "the kernel" if sender is None else visible(sender)


def _limits(workloads: Sequence[Workload]) -> Iterator[Fact]:
    limited = [one for one in workloads if one.limit_bytes is not None]
    if not limited:
        return
    low, high = limit_states.too_low(limited), limit_states.too_high(limited)
    judged = sum(map(limit_states.is_judged, limited))
    counts = {
        "too low": len(low),
        f"too high by more than {100 * limit_states.SPARE:.0f} %": len(high),
        "right": judged - len(low) - len(high),
        "not judged": len(limited) - judged,
    }
    said = ", ".join(f"{units.count(count)} {state}" for state, count in counts.items() if count)
    yield "limits", f"{said}, of {counted(len(limited), 'workload')}"
    if low:
        yield "too low", _listed([_change(one) for one in low])
    if high:
        yield "too high", _listed([_change(one) for one in high])
    if held := [
        one for one in workloads if one.suggestion.held_back_runs and limit_states.is_only_least(one)
    ]:
        yield "held back", _listed([_held_back(one) for one in held], between="; ")


def _held_back(one: Workload) -> str:
    said = one.suggestion
    why = " and ".join(_HELD_BACK[name] for name in said.held_back_by)
    return f"{_short(one.workload)} needs {least_in_words(one)}, for its runs {why}"


def _change(one: Workload) -> str:
    suggested = limit_states.better_limit_bytes(one)
    better = f"suggested {units.size(suggested)}{_outcome(one, suggested)}"
    if limit_states.is_only_least(one):
        better = f"needs {least_in_words(one)}"
    return f"{_short(one.workload)} has {units.size(one.limit_bytes)} ({better})"


def _outcome(one: Workload, limit_bytes: int | None) -> str:
    """Return `: 2 of 311 runs would have died`; empty if the traces decide less than half of them."""
    found = one.replay_at(limit_bytes)
    if found is None or 2 * found.unknown > found.lives:
        return ""
    return f": {replay_in_words(found)}"


def replay_in_words(found: Replayed) -> str:
    """Return `2 of 311 runs would have died, 9 not known`."""
    died = "none" if not found.killed else units.count(found.killed)
    unknown = f", {units.count(found.unknown)} not known" if found.unknown else ""
    return f"{died} of {counted(found.lives, 'run')} would have died{unknown}"


def least_in_words(one: Workload) -> str:
    """Return `more than 100 MiB` if runs were killed for lack of memory, else `at least 100 MiB`."""
    words = "more than" if limit_states.is_exceeded(one) else "at least"
    return f"{words} {units.size(one.suggestion.least_limit_bytes)}"


def _evictions(fleet: Fleet) -> Iterator[Fact]:
    evicted = [one for one in fleet.evictors if one.evicted_bytes]
    others = [one for one in evicted if not is_its_own(one)]
    if not others:
        if evicted:
            own = units.size(sum(one.evicted_bytes or 0 for one in evicted))
            yield "evictions", f"{own} of page cache, none by tasks of another workload"
        return
    most = max(others, key=lambda one: one.evicted_bytes or 0)
    yield (
        "evictions",
        f"{units.size(evicted_by_others(fleet))} of page cache by tasks of another workload; the most, "
        f"{units.size(most.evicted_bytes)}, by {_short(most.evictor_workload)} from "
        f"{_short(most.owner_workload)}",
    )


def _listed(words: Sequence[str], most: int = _MOST_NAMED, between: str = ", ") -> str:
    """Return the first of the words, and the number of further ones."""
    named, more = words[:most], len(words) - most
    return between.join(named) + (f"{between}and {units.count(more)} more" if more > 0 else "")


def _short(name: str) -> str:
    return fitted(name, _NAME_CELLS)
