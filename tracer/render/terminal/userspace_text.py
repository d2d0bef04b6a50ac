"""Kills by programs in user space that a log has beside the kernel's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import RenderableType

from tracer import units
from tracer.kernel.kmsg.userspace import UserspaceKill
from tracer.render.terminal import paragraphs
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose

_MOST: Final = 8


def instead_of_a_report(kills: Sequence[UserspaceKill], *, is_empty: bool) -> str:
    """Return the answer for a log without a report of the kernel's OOM killer."""
    if is_empty:
        return "This log is empty, so it shows no kill: give what dmesg or journalctl -k prints (as root)."
    if not kills:
        return "This log has no report of the OOM killer: the kernel killed nothing, or logged it elsewhere."
    killers = " and ".join(dict.fromkeys(kill.killer for kill in kills))
    return f"This log has no report of the kernel's OOM killer. In user space, {killers} killed:"


def listed(kills: Sequence[UserspaceKill]) -> Iterator[RenderableType]:
    """Yield a sentence for each of the first kills."""
    yield paragraphs.title("Killed in user space, not by the kernel")
    for kill in kills[:_MOST]:
        pid = "" if kill.pid is None else f" (pid {kill.pid})"
        victim = f"{visible(kill.victim or 'an unnamed process')}{pid}"
        yield prose(f"{kill.killer} killed {victim}: {visible(kill.reason)} (line {kill.line})")
    if len(kills) > _MOST:
        yield paragraphs.note(f"{units.count(len(kills) - _MOST)} more: --json lists all")


def to_dict(kill: UserspaceKill) -> dict[str, Any]:
    """Return the object of a kill in `userspace_kills` of the JSON."""
    return {
        "line": kill.line,
        "killer": kill.killer,
        "victim": kill.victim,
        "pid": kill.pid,
        "reason": kill.reason,
    }
