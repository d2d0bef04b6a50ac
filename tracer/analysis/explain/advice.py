"""Advice on a kill: sentences to act on, as far as the evidence shows."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import crowd
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.wording import process
from tracer.analysis.results.conclusions import Cause
from tracer.units import count, duration, size


def advise(findings: Findings, cause: Cause) -> tuple[str, ...]:
    """Return sentences to act on: first on the cause, then on processes, then on cgroups.

    Empty where the cause has no cure.
    """
    shortage = findings.circumstances.shortage
    if shortage is not None and shortage.advice:
        return shortage.advice
    cures = tuple(CAUSES[cause].cure(findings))
    return (*cures, *_who(findings), *_where(findings)) if cures else ()


def _who(findings: Findings) -> Iterator[str]:
    """Yield the processes to look at."""
    top = findings.allocators[0] if findings.allocators else None
    many = crowd(findings)
    if many is not None:
        yield (
            f"Find what starts so many processes ({count(many[0])}), and bound their number (pids.max): "
            f"the largest held only {size(many[1])}."
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
    """Yield the cgroups to look at."""
    if findings.owner.is_ancestor:
        yield "The limit belongs to an ancestor, and all cgroups below share it: look at its other children."
