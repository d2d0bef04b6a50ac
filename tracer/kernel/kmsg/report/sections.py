"""The lines of an OOM report (mm/oom_kill.c, mm/memcontrol.c): from the text of one to its facts, or None.

A comm or a path may contain any of the words that surround it, so it is bounded by what it cannot contain: a
comm is at most 15 bytes (TASK_COMM_LEN), numbers stand where no name can follow, and a victim's cgroup is the
limit's own or one below it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from tracer.kernel.kmsg.report.log_report import (
    Chosen,
    Constraint,
    Counter,
    CounterName,
    Invoker,
    Kill,
    MemoryStat,
    Reaped,
    SlabCache,
    Stamp,
    TaskRow,
)
from tracer.kernel.kmsg.report.nodes import Nodemask
from tracer.schema import UNLIMITED_BYTES

INVOKED: Final = " invoked oom-killer: gfp_mask="
SUMMARY: Final = "oom-kill:constraint="
STATS: Final = "Memory cgroup stats for "
SYSTEM_OOM: Final = "System OOM encountered, victim process: "
KILLED: Final = "Killed process "
CHOSEN: Final = "Kill process "
OLD_CHOSEN: Final = "kill process "  # before Linux 2.6.36
LIMIT_OF: Final = " killed as a result of limit of "
REAPER: Final = "oom_reaper: "
GROUP: Final = " are going to be killed due to memory.oom.group set"

_COMM_BYTES: Final = 15
_MOST_SPLITS: Final = 64
_CONSTRAINTS: Final[Mapping[str, Constraint]] = {
    "CONSTRAINT_NONE": "global",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "mempolicy",
    "CONSTRAINT_MEMCG": "memcg",
}
_TASK_MEMCG: Final = ",task_memcg="
_OTHER_CONSTRAINT: Final = re.compile(r"CONSTRAINT_[A-Z0-9_]{1,64}")
_GFP: Final = re.compile(r"(0x[0-9a-f]{1,16}|0)(?:\(([^()]{0,1000})\))?")
_NODES: Final = r"\(null\)|[\d,-]*"
_NODEMASK: Final = re.compile(r" nodemask=(\(null\)|[\d,-]*?),?( {1,2})")
_ORDER: Final = re.compile(r" order=(-?\d{1,9})\b")
_ADJ: Final = re.compile(r"oom_score_adj[=:](-?\d{1,9})\b")
_CPU: Final = re.compile(r"CPU: (\d{1,9}) (?:UID: (\d{1,10}) )?PID: (\d{1,10}) Comm:(?: |$)")
_OLD_CPU: Final = re.compile(r"Pid: (\d{1,10}), comm: ")
_TAINT: Final = re.compile(r" (?:Kdump: loaded )?(Not tainted|Tainted: [A-Z -]{1,80}?) +(\S{1,255}) #")
_CPUSET_MEMS: Final = re.compile(r" mems_allowed=([\d,-]*)\s*")
_OFFSET: Final = r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
_FRAME: Final = re.compile(
    r" *(?:\[<?[0-9a-f]{1,16}>?\] ?){0,2}(\? )?"
    rf"(?:([\w.$]{{1,512}}{_OFFSET})"
    rf"|\(?([\w.$]{{1,512}})\)? from (?:\[<[0-9a-f]{{1,16}}>\] )?\(?[\w.$]{{1,512}}{_OFFSET})"
)
_COUNTER: Final = re.compile(
    r"(memory|memory\+swap|swap|kmem): usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt (\d{1,20})\s*"
)
_STAT: Final = re.compile(r"\s*([a-z][a-z0-9_]{0,63}) (\d{1,20})\s*")
_OLD_STAT: Final = re.compile(r"([a-z][a-z0-9_]{0,63}):(\d{1,20})KB")
_SLAB: Final = re.compile(r"(\S.{0,255}?) +(\d{1,20})KB +(\d{1,20})KB\s*")
_MEMS: Final = re.compile(rf",mems_allowed=({_NODES}),(?:(global_oom),|oom_memcg=)")
_SPACED: Final = re.compile(
    r",\s{1,40}(?=(?:cpuset|mems_allowed|oom_memcg|task_memcg|task|pid|uid)=|global_oom,)"
)
"""Between fields, where people set the line anew."""

_PID_UID: Final = re.compile(r",pid= *(\d{1,10}),uid= *(\d{1,10})\s*")
_KILLED_PID: Final = re.compile(r" ?(\d{1,10}),? (?:UID (\d{1,10}), )?\(")
_PROTECTION: Final = re.compile(
    r"Memory cgroup min protection (\d{1,20})kB -- low protection (\d{1,20})kB\s*"
)
_REASON: Final = re.compile(r"(?:Memory cgroup o|O)ut of memory.{0,64}:(?= $)")
_SYSTEM_OOM: Final = re.compile(r"System OOM encountered, victim process: (.{1,64}?), pid: (\d{1,10})")
_SCORE: Final = re.compile(r"\) score (\d{1,20}) or (?:sacrifice|a) child")
_REAPER: Final = re.compile(r"oom_reaper: (?:reaped process (\d{1,10})|unable to reap pid:(\d{1,10})) \(")
_SIZE: Final = re.compile(r"([a-zA-Z_-]{1,32}):(-?\d{1,20})(kB)?")
_NO_SIZES: Final = ("UID", "oom_score_adj")
_SUPPRESSED: Final = re.compile(
    r"(?:oom_kill_process|dump_header|out_of_memory): (\d{1,9}) (?:callbacks|messages) suppressed"
)
_DROPPED: Final = re.compile(
    r"\*\* (\d{1,9}) printk messages? dropped|systemd-journald\[\d{1,10}\]: Missed (\d{1,9}) kernel message"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The `oom-kill:` line."""

    constraint: str
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    oom_memcg: str | None = None
    task_memcg: str | None = None
    chosen: Chosen | None = None


def invoked(text: str) -> tuple[Invoker, Nodemask | None] | None:
    """`X invoked oom-killer: gfp_mask=…`: the task, and the nodemask that Linux 4.9 to 4.20 print here."""
    comm, found, rest = text.rpartition(INVOKED)
    gfp = _GFP.match(rest)
    if not found or gfp is None or ("\n" in comm and not _fits_comm(comm)):
        return None
    rest = rest[gfp.end() :]
    nodemask = _NODEMASK.search(rest)
    invoker = Invoker(
        comm=comm if _fits_comm(comm) else None,  # else a prefix that is not known stands before it
        gfp=int(gfp[1], 16),
        gfp_names=gfp[2],
        order=_number(_ORDER.search(rest)),
        oom_score_adj=_number(_ADJ.search(rest)),
    )
    return invoker, None if nodemask is None else Nodemask(nodemask[1], is_of_policy=len(nodemask[2]) > 1)


def head_of_trace(text: str) -> Invoker | None:
    """`CPU: 0 UID: 0 PID: 7 Comm: a Not tainted 6.12.1 #1`; the uid since Linux 6.12.

    Before Linux 3.9 `Pid: 7, comm: a Not tainted 2.6.32 #1`. A line that was cut has no taint.
    """
    text = text.lstrip()
    head, old = _CPU.match(text), _OLD_CPU.match(text)
    if head is None and old is None:
        return None
    cpu, uid, pid = head.groups() if head is not None else (None, None, old[1] if old is not None else None)
    begin = (head or old).end()  # type: ignore[union-attr]
    ends = list(_TAINT.finditer(text, begin))
    within = [end for end in ends if _fits_comm(text[begin : end.start()])]
    end = within[-1] if within else None
    return Invoker(
        comm=text[begin : end.start()] if end is not None else None,
        pid=None if pid is None else int(pid),
        uid=None if uid is None else int(uid),
        cpu=None if cpu is None else int(cpu),
        taint=None if end is None else " ".join(end[1].split()),
        kernel_release=None if end is None else end[2],
    )


def cpuset(text: str) -> tuple[str, str] | None:
    """(cpuset, mems_allowed) of Linux 4.19's `X cpuset=/ mems_allowed=0`; later the summary has them."""
    _, found, rest = text.partition(" cpuset=")
    end = rest.rfind(" mems_allowed=")
    mems = _CPUSET_MEMS.fullmatch(rest, end) if found and end >= 0 else None
    return None if mems is None else (rest[:end], mems[1])


def frame(text: str) -> tuple[str, bool] | None:
    """A frame of the call trace, and whether the kernel holds it for reliable (else it is marked with `?`).

    Of 32-bit ARM's `a from b+0x1/0x2`, a.
    """
    found = _FRAME.match(text)
    return None if found is None else (found[2] or found[3], found[1] is None)


def counter(text: str) -> tuple[CounterName, Counter] | None:
    """`memory: usage 102400kB, limit 102400kB, failcnt 7`."""
    found = _COUNTER.fullmatch(text)
    if found is None:
        return None
    limit = int(found[3]) * 1024
    # PAGE_COUNTER_MAX, in kB of whatever the page size is, is the largest number of pages below 2^63 bytes.
    limit = UNLIMITED_BYTES if limit >= UNLIMITED_BYTES - (1 << 20) else limit
    name: CounterName = found[1]  # type: ignore[assignment]
    return name, Counter(int(found[2]) * 1024, limit, int(found[4]))


def limit_of(text: str) -> tuple[str, str | None] | None:
    """(task's cgroup, limit's cgroup) of Linux 4.19's `Task in /a/b killed as a result of limit of /a`; None
    for that of the limit where the paste ends within its path."""
    if not text.startswith("Task in "):
        return None
    body = text[len("Task in ") :]
    for at in _places(body, LIMIT_OF):
        task, owner = body[:at], body[at + len(LIMIT_OF) :]
        if owner.rstrip().endswith("/") and owner.rstrip() != "/":
            return task, None
        if _is_within(task, owner):
            return task, owner
        if _is_within(task, owner.rstrip()):  # pasted with blanks at the end
            return task, owner.rstrip()
    return None


def stats(text: str) -> MemoryStat | None:
    """`Memory cgroup stats for /a:`; before Linux 5.3 the line has the counters, too, in KB."""
    _, found, rest = text.partition(STATS)
    if not found:
        return None
    at = rest.rfind(": cache:")
    if at < 0:
        path = rest.rstrip()
        return MemoryStat(path.removesuffix(":") if path.endswith(":") else "", {})  # else it was cut
    values = {name: int(number) * 1024 for name, number in _OLD_STAT.findall(rest, at + 1)}
    return MemoryStat(rest[:at], values, resolution_bytes=1024)


def stat(text: str) -> tuple[str, int] | None:
    """`inactive_file 4096`: a line of memory.stat."""
    found = _STAT.fullmatch(text)
    return None if found is None else (found[1], int(found[2]))


def protection(text: str) -> tuple[int, int] | None:
    """(memory.min, memory.low) of `Memory cgroup min protection 0kB -- low protection 4kB`, in bytes."""
    found = _PROTECTION.fullmatch(text)
    return None if found is None else (int(found[1]) * 1024, int(found[2]) * 1024)


def slab(text: str) -> SlabCache | None:
    """`kmalloc-64   1024KB   2048KB`."""
    found = _SLAB.fullmatch(text)
    return None if found is None else SlabCache(found[1], int(found[2]) * 1024, int(found[3]) * 1024)


def task_columns(text: str) -> tuple[str, ...] | None:
    """The columns of the table of tasks, from its title; they differ by release."""
    head, _, names = text.strip().partition("]")
    if head.replace(" ", "") != "[pid" or not names.endswith(" name"):
        return None
    columns = ("pid", *names.split())
    return columns if {"uid", "tgid", "total_vm", "rss", "oom_score_adj"} <= {*columns[:20]} else None


def task(text: str, columns: tuple[str, ...]) -> TaskRow | None:
    """A row of that table; the name is what follows one space after the last number."""
    found = _row(len(columns) - 2).fullmatch(text)
    if found is None or not _fits_comm(found.groups()[-1]):
        return None
    cells = dict(zip(columns, map(int, found.groups()[:-1]), strict=False))
    return TaskRow(
        pid=cells["pid"],
        uid=cells["uid"],
        tgid=cells["tgid"],
        total_vm_pages=cells["total_vm"],
        rss_pages=cells["rss"],
        rss_anon_pages=cells.get("rss_anon"),
        rss_file_pages=cells.get("rss_file"),
        rss_shmem_pages=cells.get("rss_shmem"),
        pgtables_bytes=cells.get("pgtables_bytes"),
        swapents_pages=cells.get("swapents", 0),
        oom_score_adj=cells["oom_score_adj"],
        comm=found.groups()[-1],
    )


@cache
def _row(numbers: int) -> re.Pattern[str]:
    return re.compile(r"\[ *(\d{1,10})\]" + r" +(-?\d{1,20})" * numbers + r" ?(.{0,64})", re.DOTALL)


def summary(text: str, comm: str | None = None) -> Summary | None:
    """`oom-kill:constraint=…`; `comm` is the chosen task's where another line tells it.

    Of a line that was cut, what comes before the cut.
    """
    _, found, body = text.partition(SUMMARY)
    if not found:
        return None
    word, _, rest = body.partition(",")
    if rest[:1] == " ":
        rest = _SPACED.sub(",", f",{rest}")[1:]
    is_of_bpf = rest and _OTHER_CONSTRAINT.fullmatch(word) is not None
    constraint = _CONSTRAINTS.get(word, word if is_of_bpf else "unknown")
    nodemask = re.match(rf"nodemask=({_NODES})(?=,)", rest)
    chosen, rest = _chosen(rest, comm)
    mems = _MEMS.search(rest)
    of_cpuset = None
    if mems is not None and (start := rest.find(",cpuset=")) >= 0:
        of_cpuset = rest[start + len(",cpuset=") : mems.start()]
    # Early kernels with this line name no cpuset.
    paths = rest[mems.end() :] if mems is not None else f",{rest}".partition(",oom_memcg=")[2]
    owner, victim = _paths(paths, is_global=mems is not None and mems[2] is not None, is_cut=chosen is None)
    return Summary(
        constraint,
        None if nodemask is None else nodemask[1],
        of_cpuset,
        None if mems is None else mems[1],
        owner,
        victim,
        chosen,
    )


def _chosen(text: str, comm: str | None) -> tuple[Chosen | None, str]:
    """The task at the end of the line, and what is before it.

    Of several places where its name may begin, the one that makes it `comm`, else the first that leaves no
    more than a comm can be.
    """
    at = text.rfind(",pid=")
    numbers = _PID_UID.fullmatch(text, at) if at >= 0 else None
    if numbers is None:
        return None, text
    names = [(place, text[place + len(",task=") : at]) for place in _places(text[:at], ",task=", last=True)]
    fitting = [name for name in names if name[1] == comm] or [name for name in names if _fits_comm(name[1])]
    if not fitting:
        return None, text
    begin, name = fitting[0]
    return Chosen(name, int(numbers[1]), int(numbers[2])), text[:begin]


def _paths(text: str, *, is_global: bool, is_cut: bool) -> tuple[str | None, str | None]:
    """(limit's cgroup, victim's cgroup) of `/a,task_memcg=/a/b`; if `is_cut`, the last of them may lack its
    end, and is not known."""
    if is_cut:
        whole, found, _ = text.rpartition(",task=")
        text = whole if found else f"{text.rpartition(_TASK_MEMCG)[0]}{_TASK_MEMCG}"
    if is_global:
        return None, text.removeprefix(_TASK_MEMCG[1:]) or None
    for at in _places(text, _TASK_MEMCG):
        owner, victim = text[:at], text[at + len(_TASK_MEMCG) :]
        if _is_within(victim, owner):
            return owner, victim
    owner, _, victim = text.partition(_TASK_MEMCG)
    return owner or None, victim or None


def killed(text: str, stamp: Stamp) -> Kill | None:
    """`Memory cgroup out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:…`."""
    reason, found, rest = text.partition(KILLED)
    head = _KILLED_PID.match(rest)
    if not found or head is None:
        return None
    end = rest.rfind(") total-vm:")
    end = end if end >= head.end() else rest.rfind(")")
    end = end if end >= head.end() else len(rest)
    fields = _fields(rest[end:].partition("\n")[0])
    uid = fields.get("UID") if head[2] is None else int(head[2])
    return Kill(
        stamp,
        pid=int(head[1]),
        comm=rest[head.end() : end],
        reason=_reason(reason),
        uid=uid,
        total_vm_bytes=fields.get("total-vm"),
        anon_rss_bytes=fields.get("anon-rss"),
        file_rss_bytes=fields.get("file-rss"),
        shmem_rss_bytes=fields.get("shmem-rss"),
        pgtables_bytes=fields.get("pgtables"),
        oom_score_adj=fields.get("oom_score_adj"),
    )


def of_event(text: str, stamp: Stamp) -> Kill | None:
    """The kill that the kubelet's event SystemOOM tells of."""
    found = _SYSTEM_OOM.search(text)
    return None if found is None else Kill(stamp, int(found[2]), found[1], reason="Out of memory")


def has_victim(text: str) -> bool:
    """Whether a line on a kill has come as far as the name of who was killed."""
    return any(
        _KILLED_PID.match(text.partition(word)[2]) is not None for word in (KILLED, CHOSEN, OLD_CHOSEN)
    )


def chosen(text: str) -> tuple[Chosen, str | None] | None:
    """Linux 4.19's `Memory cgroup out of memory: Kill process 7 (a) score 900 or sacrifice child`: whom, and
    what the line begins with."""
    reason, found, rest = text.partition(CHOSEN if CHOSEN in text else OLD_CHOSEN)
    head = _KILLED_PID.match(rest)
    ends = list(_SCORE.finditer(rest))
    if not found or head is None or not ends or ends[-1].start() < head.end():
        return None
    comm = rest[head.end() : ends[-1].start()]
    return Chosen(comm, int(head[1]), score=int(ends[-1][1])), _reason(reason)


def group(text: str) -> str | None:
    """The cgroup of `Tasks in /a are going to be killed due to memory.oom.group set`."""
    path, found, _ = text.rpartition(GROUP)
    return path.removeprefix("Tasks in ") if found and path.startswith("Tasks in ") else None


def reaped(text: str, stamp: Stamp) -> Reaped | None:
    """What the oom_reaper says."""
    head = _REAPER.match(text)
    if head is None:
        return None
    end = text.rfind("), now anon-rss:") if head[1] is not None else text.rfind(")")
    if end < head.end():
        return None
    fields = _fields(text[end:])
    return Reaped(
        stamp,
        pid=int(head[1] or head[2]),
        comm=text[head.end() : end],
        is_reaped=head[1] is not None,
        anon_rss_bytes=fields.get("anon-rss"),
        file_rss_bytes=fields.get("file-rss"),
        shmem_rss_bytes=fields.get("shmem-rss"),
    )


def suppressed(text: str) -> int | None:
    """How many reports the rate limit of `oom_kill_process` kept back."""
    return _number(_SUPPRESSED.match(text))


def dropped(text: str) -> int | None:
    """How many lines the kernel or the journal says it lost."""
    found = _DROPPED.search(text)
    return None if found is None else int(found[1] or found[2])


def _reason(text: str) -> str | None:
    """`Out of memory` and its like, whatever stands before it."""
    found = _REASON.search(text.partition(CHOSEN)[0].partition(OLD_CHOSEN)[0])
    return None if found is None else found[0].removesuffix(":")


def _fields(text: str) -> dict[str, int]:
    """`anon-rss:4kB, UID:0`: sizes in bytes, other numbers as they are. A size without its unit was cut."""
    return {
        name: int(number) * (1024 if unit else 1)
        for name, number, unit in _SIZE.findall(text)
        if unit or name in _NO_SIZES
    }


def _number(found: re.Match[str] | None) -> int | None:
    return None if found is None else int(found[1])


def _fits_comm(name: str) -> bool:
    return len(name.encode("utf-8", "surrogateescape")) <= _COMM_BYTES


def _is_within(path: str, ancestor: str) -> bool:
    return path.startswith("/") and (path == ancestor or path.startswith(ancestor.rstrip("/") + "/"))


def _places(text: str, word: str, *, last: bool = False) -> list[int]:
    """Where `word` stands, in order: at most `_MOST_SPLITS` places, from the beginning or from the end."""
    places: list[int] = []
    at = text.rfind(word) if last else text.find(word)
    while at >= 0 and len(places) < _MOST_SPLITS:
        places.append(at)
        at = text.rfind(word, 0, at) if last else text.find(word, at + 1)
    return places[::-1] if last else places
