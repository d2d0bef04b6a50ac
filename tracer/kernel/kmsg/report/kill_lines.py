"""The lines about killed tasks, and about tasks that the oom_reaper reaps (mm/oom_kill.c)."""

from __future__ import annotations

import re
from typing import Final

from tracer.kernel.kmsg.report.log_report import Chosen, Kill
from tracer.kernel.kmsg.text.line_markers import CHOSEN, GROUP, KILLED, KILLED_PID, OLD_CHOSEN, fits_comm
from tracer.kernel.kmsg.text.log_record import Stamp

_REASON: Final = re.compile(r"(?:(?:Memory cgroup o|O)ut of memory.{0,64}|Out of Memory):(?= $)")
EVENT: Final = "System OOM encountered"
_CUT_PID: Final = re.compile(r" ?(\d{1,10})[ ,]{0,2}")
_SYSTEM_OOM: Final = re.compile(r"System OOM encountered, victim process: (.{1,64}?), pid: (\d{1,10})")
_SCORE: Final = re.compile(r"\) score \d{1,20} or (?:sacrifice|a) child")
_REAPER: Final = re.compile(r"oom_reaper: (?:reaped process (\d{1,10})|unable to reap pid:(\d{1,10})) \(")
_SIZE: Final = re.compile(r"([a-zA-Z_-]{1,32}):(-?\d{1,20})(kB)?")
_AFTER_NAME: Final = (") total-vm:", ") vsz:", ")")  # vsz: v2.6.36 to v2.6.38
_NO_SIZES: Final = ("UID", "oom_score_adj")


def chosen(text: str) -> tuple[Chosen, str | None] | None:
    """Return the task of `Memory cgroup out of memory: Kill process 7 (a) score 900 or sacrifice child`,
    which kernels before v5.0 print, and the reason before it; None for any other line."""
    reason, found, rest = text.partition(CHOSEN if CHOSEN in text else OLD_CHOSEN)
    head = KILLED_PID.match(rest)
    ends = list(_SCORE.finditer(rest))
    if not found or head is None or not ends or ends[-1].start() < head.end():
        return None
    comm = rest[head.end() : ends[-1].start()]
    return Chosen(comm, int(head[1])), _reason(reason)


def killed(text: str, stamp: Stamp) -> Kill | None:
    """Return the kill of `Memory cgroup out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:…`; None
    for any other line.

    The comm is empty or incomplete if the line was cut there (`is_cut_at_pid`).
    """
    reason, found, rest = text.partition(KILLED)
    head = KILLED_PID.match(rest)
    if found and head is None and (cut := _CUT_PID.fullmatch(rest)) is not None:
        return Kill(stamp, int(cut[1]), "", _reason(reason))
    if not found or head is None:
        return None
    end = next((at for word in _AFTER_NAME if (at := rest.rfind(word)) >= head.end()), -1)
    if end < 0 or not fits_comm(rest[head.end() : end]):
        line = rest.partition("\n")[0]
        end = max(line.rfind(")"), -1)
        end = end if end >= head.end() else len(line)
    fields = _fields(rest[end:].partition("\n")[0])
    uid = fields.get("UID") if head[2] is None else int(head[2])
    return Kill(
        stamp,
        pid=int(head[1]),
        comm=rest[head.end() : end],
        reason=_reason(reason),
        uid=uid,
        total_vm_bytes=fields.get("total-vm", fields.get("vsz")),
        anon_rss_bytes=fields.get("anon-rss"),
        file_rss_bytes=fields.get("file-rss"),
        shmem_rss_bytes=fields.get("shmem-rss"),
        pgtables_bytes=fields.get("pgtables"),
        oom_score_adj=fields.get("oom_score_adj"),
    )


def is_cut_at_pid(kill: Kill) -> bool:
    """Return whether the line about a kill ended with the pid, which may be incomplete then."""
    return not kill.comm and kill.total_vm_bytes is None


def system_oom(text: str, stamp: Stamp) -> Kill | None:
    """Return the kill that the kubelet's event SystemOOM names; None for any other line."""
    found = _SYSTEM_OOM.search(text)
    return None if found is None else Kill(stamp, int(found[2]), found[1], reason=EVENT)


def group(text: str) -> str | None:
    """Return the cgroup of `Tasks in /a are going to be killed due to memory.oom.group set`; None for any
    other line."""
    path, found, _ = text.rpartition(GROUP)
    return path.removeprefix("Tasks in ") if found and path.startswith("Tasks in ") else None


def reaped(text: str, stamp: Stamp) -> Kill | None:
    """Return the kill of the victim of `oom_reaper: reaped process 7 (a), now anon-rss:…` or `oom_reaper:
    unable to reap pid:7 (a)`; None for any other line."""
    head = _REAPER.match(text)
    if head is None:
        return None
    end = text.rfind("), now anon-rss:") if head[1] is not None else text.rfind(")")
    if end < head.end():
        return None
    return Kill(stamp, int(head[1] or head[2]), text[head.end() : end])


def _reason(text: str) -> str | None:
    """Return `Out of memory` or a similar reason at the end of the text, whatever is before it."""
    found = _REASON.search(text.partition(CHOSEN)[0].partition(OLD_CHOSEN)[0])
    return None if found is None else found[0].removesuffix(":")


def _fields(text: str) -> dict[str, int]:
    """Return the numbers of `anon-rss:4kB, UID:0`: sizes in bytes, other numbers unchanged.

    A size without its unit was cut, and is left out.
    """
    return {
        name: int(number) * (1024 if unit else 1)
        for name, number, unit in _SIZE.findall(text)
        if unit or name in _NO_SIZES
    }
