"""Kills without a report of the kernel's OOM killer: by programs in user space, and by a driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import RenderableType

from tracer import units
from tracer.kernel.kmsg.other_killers import OtherKill
from tracer.render.terminal import paragraphs
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose

_MOST: Final = 8


def instead_of_a_report(kills: Sequence[OtherKill]) -> str:
    """Return the answer for a log without a report of the kernel's OOM killer."""
    if not kills:
        return "This log has no report of the OOM killer: the kernel killed nothing, or logged it elsewhere."
    killers = " and ".join(dict.fromkeys(map(_killer, kills)))
    in_kernel = any(kill.is_in_kernel for kill in kills)
    killed = f"It names kills by {killers}:" if in_kernel else f"In user space, {killers} killed:"
    return f"This log has no report of the kernel's OOM killer. {killed}"


def listed(kills: Sequence[OtherKill]) -> Iterator[RenderableType]:
    """Yield a sentence for each of the first kills."""
    in_kernel = any(kill.is_in_kernel for kill in kills)
    yield paragraphs.title(
        "Killed without a report" if in_kernel else "Killed in user space, not by the kernel"
    )
    for kill in kills[:_MOST]:
        pid = "" if kill.pid is None else f" (pid {kill.pid})"
        victim = f"{visible(kill.victim or 'an unnamed process')}{pid}"
        if kill.is_by_oom_killer:
            yield prose(
                f"{_killer(kill)} killed a process of {victim}, as systemd reports (line {kill.line})"
            )
            continue
        yield prose(f"{_killer(kill)} killed {victim}: {visible(kill.reason)} (line {kill.line})")
    if len(kills) > _MOST:
        yield paragraphs.note(f"{units.count(len(kills) - _MOST)} more: --json lists all")


def _killer(kill: OtherKill) -> str:
    if kill.is_by_oom_killer:
        return "the kernel's OOM killer"
    return f"the kernel's driver {kill.killer}" if kill.is_in_kernel else kill.killer


def to_dict(kill: OtherKill) -> dict[str, Any]:
    """Return the object of a kill in `userspace_kills` or `other_kernel_kills` of the JSON."""
    return {
        "line": kill.line,
        "killer": kill.killer,
        "victim": kill.victim,
        "pid": kill.pid,
        "reason": kill.reason,
    }
