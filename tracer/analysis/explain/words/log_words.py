"""The words about a kernel log beside a trace: their differences, and a kill of which the log has little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.words.sentence_parts import NO_VICTIM, none_left, owner_name, process
from tracer.analysis.kernel_log.comparison import Difference
from tracer.analysis.results.kill import Candidate

MISSED: Final = "the kernel log has this kill: the probe of the OOM killer missed it"
_BOTH: Final = "{ours}, in the kernel log {theirs}"
_SIZES: Final = "{ours} bytes, in the kernel log {theirs}"
DIFFERENCES: Final[Mapping[str, str]] = {
    "constraint": f"constraint: {_BOTH}",
    "limit_owner": f"the limit owner: {_BOTH}",
    "trigger_pid": f"the pid of the trigger: {_BOTH}",
    "trigger_comm": f"the name of the trigger: {_BOTH}",
    "order": f"order: {_BOTH}",
    "gfp": "gfp: {ours:#x}, in the kernel log {theirs:#x}",
    "usage_bytes": f"usage: {_SIZES}",
    "limit_bytes": f"limit: {_SIZES}",
    "comm": f"the name of pid {{pid}}: {_BOTH}",
    "oom_score_adj": f"oom_score_adj of pid {{pid}}: {_BOTH}",
    "anon_rss_bytes": f"anon RSS of pid {{pid}}: {_SIZES}",
    "file_rss_bytes": f"file RSS of pid {{pid}}: {_SIZES}",
    "shmem_rss_bytes": f"shmem RSS of pid {{pid}}: {_SIZES}",
    "pgtables_bytes": f"page tables of pid {{pid}}: {_SIZES}",
    "not_logged": "pid {pid} was marked as a victim, but the kernel log has no line on it",
    "not_marked": "the kernel log has a kill of pid {pid}, which was not marked as a victim",
}
"""Kind of `Difference` -> its sentence."""


def difference(one: Difference) -> str:
    """Return the sentence of a difference, with both numbers."""
    return DIFFERENCES[one.kind].format(ours=one.ours, theirs=one.theirs, pid=one.pid)


def contradiction(ranked: Sequence[Candidate]) -> str:
    """Return the sentence on a choice that the numbers of the candidates contradict."""
    first, chosen = ranked[0], next((one for one in ranked if one.chosen), None)
    if chosen is None:
        return "the task that was killed is not among those that were weighed"
    its = "which cannot be killed" if chosen.badness is None else f"with {chosen.badness}"
    return (
        f"by these numbers {first.comm} (pid {first.pid}) with a badness of {first.badness} pages would have "
        f"been killed, and not {chosen.comm} (pid {chosen.pid}), {its}"
    )


def summary_of_a_line(findings: Findings, nodes: str, *, has_owner: bool, has_summary: bool) -> str:
    """Return the summary of a kill whose report the log has not, or in part.

    `nodes`: those of the request, as the log prints them. `has_owner`: the log names the owner of the limit.
    `has_summary`: it has the line with the constraint.
    """
    names = [process(victim.comm, victim.pid) for victim in findings.victims]
    killed = f"{', '.join(names) or 'a process'} {'were' if len(names) > 1 else 'was'} killed because"
    if findings.circumstances.no_victim:
        killed = f"{NO_VICTIM[findings.circumstances.no_victim]}:"
    short = "memory was short"
    if findings.constraint == "memcg":
        short = f"{owner_name(findings.owner) if has_owner else 'a cgroup'} was at its limit"
    elif findings.constraint in ("cpuset", "mempolicy"):
        short = none_left(findings.constraint, nodes)
    rest = "not the whole of its report" if has_summary else "nothing but the kill itself"
    return f"{killed} {short}; the kernel log has {rest}."
