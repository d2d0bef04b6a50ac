"""The lines of an OOM report: its header and call trace, the cgroup's memory, the table of tasks, the kills.

They are printed by mm/oom_kill.c and mm/memcontrol.c, in this order; printk states how many lines are lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import Any, Final

from tracer.kernel.kmsg.report.log_report import (
    Chosen,
    Counter,
    CounterName,
    Invoker,
    Kill,
    MemoryStat,
    TaskRow,
)
from tracer.kernel.kmsg.report.mem_info import Nodemask
from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.markers import (
    CHOSEN,
    GROUP,
    INVOKED,
    KILLED,
    KILLED_PID,
    NO_PID,
    OLD_CHOSEN,
    STATS,
    UB_KILLED,
    fits_comm,
)
from tracer.kernel.kmsg.text.shapes import shape_of_task_row
from tracer.kernel.kmsg.text.styles import Stamp
from tracer.schema import UNLIMITED_BYTES

_ASKED: Final = " invoked "
_GFP: Final = re.compile(r"(0x[0-9a-f]{1,16}|0)(?:\(([^()]{0,1000})\))?")
_NODEMASK: Final = re.compile(r" nodemask=(\(null\)|[\d,-]*?),?( {1,2})")
_ORDER: Final = re.compile(r" order=(-?\d{1,2})\b")
_HEAD: Final = re.compile(
    r"(?:CPU: \d{1,9} (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm:(?: |$)|Pid: (\d{1,10}), comm: )"
)
_TAINT: Final = re.compile(r" (?:Kdump: loaded )?(Not tainted|Tainted: [A-Z -]{1,80}?) +(\S{1,255}) #")
_CPUSET_MEMS: Final = re.compile(r" mems_allowed=([\d,-]*)\s*")
_OFFSET: Final = r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
_FRAME: Final = re.compile(
    r" *(?:\[<?[0-9a-f]{1,16}>?\] ?){0,2}(\? )?"
    rf"(?:([\w.$]{{1,512}}{_OFFSET})"
    rf"|\(?([\w.$]{{1,512}})(?:{_OFFSET})?\)? from (?:\[<[0-9a-f]{{1,16}}>\] )?\(?([\w.$]{{1,512}}){_OFFSET})"
)


def invoked(text: str) -> tuple[Invoker, Nodemask | None] | None:
    """Return the task of `X invoked oom-killer: gfp_mask=…`, and the nodemask that v4.9 to v4.20 print in it;
    None for any other line.

    Before v2.6.18, the line begins with `oom-killer:` and names no task.
    """
    before, _, rest = text.rpartition(INVOKED)
    comm, asked, more = before.rpartition(_ASKED)
    gfp = _GFP.match(rest)
    is_named, is_oldest = bool(asked) and not more, not before and shapes.kind(text) == "header"
    if gfp is None or not (is_named or is_oldest) or ("\n" in comm and not fits_comm(comm)):
        return None
    rest = rest[gfp.end() :]
    nodemask, order = _NODEMASK.search(rest), _ORDER.search(rest)
    invoker = Invoker(
        comm=comm if asked and fits_comm(comm) else None,  # too long: an unknown prefix is before it
        gfp=int(gfp[1], 16),
        gfp_names=gfp[2],
        order=None if order is None else int(order[1]),
    )
    return invoker, None if nodemask is None else Nodemask(nodemask[1], is_of_policy=len(nodemask[2]) > 1)


def head_of_trace(text: str) -> Invoker | None:
    """Return the task of `CPU: 0 UID: 0 PID: 7 Comm: a Not tainted 6.12.1 #1`; None for any other line.

    Before a43cb95d547a ("dump_stack: unify debug information printed by show_regs()"), v3.10, the line is
    `Pid: 7, comm: a Not tainted 2.6.32 #1`. A line that was cut has no taint.
    """
    text = text.lstrip()
    head = _HEAD.match(text)
    if head is None:
        return None
    begin = head.end()
    within = [end for end in _TAINT.finditer(text, begin) if fits_comm(text[begin : end.start()])]
    end = within[-1] if within else None
    return Invoker(
        comm=None if end is None else text[begin : end.start()],
        pid=int(head[1] or head[2]),
        taint=None if end is None else " ".join(end[1].split()),
        kernel_release=None if end is None else end[2],
    )


def cpuset(text: str) -> tuple[str, str] | None:
    """Return (cpuset, mems_allowed) of `X cpuset=/ mems_allowed=0`, which kernels before v5.0 print; None for
    any other line."""
    _, found, rest = text.partition(" cpuset=")
    end = rest.rfind(" mems_allowed=")
    mems = _CPUSET_MEMS.fullmatch(rest, end) if found and end >= 0 else None
    return None if mems is None else (rest[:end], mems[1])


@lru_cache(maxsize=1024)  # most reports of a log have the same frames
def frame(text: str) -> tuple[str, tuple[str, ...], bool] | None:
    """Return a frame of the call trace, its function and perhaps the caller, and whether it is reliable (the
    kernel marks others with `?`); None for any other line.

    The frame of 32-bit ARM's `a from b+0x1/0x2` is a, which b called, as is that of `(a+0x0/0x4) from
    [<c0001000>] (b+0x1/0x2)` on old kernels.
    """
    found = _FRAME.match(text)
    if found is None:
        return None
    named = intern(found[2] or found[3])
    functions = (named.partition("+")[0], *filter(None, found.groups()[3:]))
    return named, tuple(name.partition(".")[0] for name in functions), found[1] is None


_COUNTER: Final = re.compile(
    r"(memory|memory\+swap|swap|kmem): usage (\d{1,20}) ?kB, limit (\d{1,20}) ?kB, failcnt (\d{1,20})\s*"
)
_STAT: Final = re.compile(r"\s*([a-z][a-z0-9_]{0,63}) (\d{1,20})\s*")
_OLD_STAT: Final = re.compile(r"([a-z][a-z0-9_]{0,63}):(\d{1,20})KB")
_PROTECTION: Final = re.compile(r"Memory cgroup min protection (\d{1,20})kB -- low protection \d{1,20}kB\s*")


def counter(text: str) -> tuple[CounterName, Counter] | None:
    """Return the page counter of `memory: usage 102400kB, limit 102400kB, failcnt 7`; None for any other
    line."""
    found = _COUNTER.fullmatch(text)
    if found is None:
        return None
    limit = int(found[3]) * 1024
    # PAGE_COUNTER_MAX, printed in kB, is the largest number of pages below 2^63 bytes, for any page size.
    limit = UNLIMITED_BYTES if limit >= UNLIMITED_BYTES - (1 << 20) else limit
    name: CounterName = found[1]  # type: ignore[assignment]
    return name, Counter(int(found[2]) * 1024, limit, int(found[4]))


def memory_stats(text: str) -> MemoryStat | None:
    """Return the cgroup of `Memory cgroup stats for /a:`; None for any other line.

    Before c8713d0b2312 ("mm: memcontrol: dump memory.stat during cgroup OOM"), v5.3, the line also has the
    values, in KB.
    """
    _, found, rest = text.partition(STATS)
    if not found:
        return None
    at = rest.rfind(": cache:")
    if at < 0:
        path = rest.rstrip()
        return MemoryStat(path.removesuffix(":") if path.endswith(":") else "", {})  # "": the line was cut
    values = {name: int(number) * 1024 for name, number in _OLD_STAT.findall(rest, at + 1)}
    return MemoryStat(rest[:at], values, resolution_bytes=1024)


def memory_stat(text: str) -> tuple[str, int] | None:
    """Return (name, value) of `inactive_file 4096`, a line of memory.stat; None for any other line."""
    found = _STAT.fullmatch(text)
    return None if found is None else (found[1], int(found[2]))


def protection(text: str) -> int | None:
    """Return memory.min, in bytes, of `Memory cgroup min protection 4kB -- low protection 0kB`; None for any
    other line."""
    found = _PROTECTION.fullmatch(text)
    return None if found is None else int(found[1]) * 1024


_MOST_COLUMNS: Final = 20
_NEEDED: Final = frozenset({"uid", "tgid", "total_vm", "rss"})
_ADJ: Final = "oom_score_adj"
_OLD_ADJ: Final = "oom_adj"
"""The column before a63d83f427fb ("oom: badness heuristic rewrite"), v2.6.36: from -17 (never killed) to
15."""

_OLD_NEVER: Final = -17
_OLD_MOST: Final = 15


@lru_cache(maxsize=16)  # all reports of a kernel have the same title
def task_columns(text: str) -> tuple[str, ...] | None:
    """Return the names of the columns from the title of the table, which differ by release; None for any
    other line."""
    head, _, names = text.strip().partition("]")
    if head.replace(" ", "") != "[pid" or not names.endswith(" name"):
        return None
    found = ("pid", *names.split())
    titles = {*found[:_MOST_COLUMNS]}
    return found if titles >= _NEEDED and titles & {_ADJ, _OLD_ADJ} else None


def task_row(text: str, names: tuple[str, ...]) -> TaskRow | None:
    """Return a row of the table with these columns; None for any other line."""
    found = shape_of_task_row(text, len(names) - 2)
    if found is None:
        return None
    *numbers, comm = found.groups()
    cells = _fields_in(names)((*map(int, numbers), None, 0, comm))
    if _ADJ not in names:
        cells = (*cells[:-2], _scaled(cells[-2]), comm)
    return TaskRow(*cells)


_FIRST_COLUMNS: Final = ("pid", "uid", "tgid", "total_vm", "rss")
_UNTITLED: Final = {
    10: ("rss_anon", "rss_file", "rss_shmem", "pgtables_bytes", "swapents", _ADJ),
    8: ("nr_ptes", "nr_pmds", "swapents", _ADJ),
    7: ("", "", _ADJ),
    6: ("cpu", _OLD_ADJ),
}
"""The number of numbers after the pid -> the columns after `rss`. Releases differ in two of seven."""

_SMALLEST_PAGE: Final = 4096


def untitled_columns(rows: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns of rows of a table without its title, by their number and their values; None if
    these rows do not have the columns of any release.

    Where there are seven numbers, the fifth and sixth are the bytes of page tables and the pages in swap
    since v4.15, the number of page tables and the pages in swap since v3.7, and the CPU and oom_adj before.
    """
    count = next((count for count in _UNTITLED if all(shape_of_task_row(row, count) for row in rows)), None)
    if count is None:
        return None
    further = _UNTITLED[count]
    if count == 7:
        cells = [(int(found[6]), int(found[7])) for row in rows if (found := shape_of_task_row(row, count))]
        if any(fifth for fifth, _ in cells) and not any(fifth % _SMALLEST_PAGE for fifth, _ in cells):
            further = ("pgtables_bytes", "swapents", _ADJ)
        elif max((sixth for _, sixth in cells), default=0) > _OLD_MOST:
            further = ("nr_ptes", "swapents", _ADJ)
    return (*_FIRST_COLUMNS, *further, "name")


@lru_cache(maxsize=64)
def _fields_in(names: tuple[str, ...]) -> Callable[[tuple[object, ...]], tuple[Any, ...]]:
    """Return what takes the fields of a `TaskRow` from the cells of a row before its name, followed by None
    and 0, the values of a column that this table may lack, and by the name."""
    *numbers, _ = names
    place_of = {name: place for place, name in enumerate(numbers)}
    absent, zero, comm = range(len(numbers), len(numbers) + 3)
    maybe = ("rss_anon", "rss_file", "rss_shmem", "pgtables_bytes")
    places = [place_of[name] for name in ("pid", "uid", "tgid", "total_vm", "rss")]
    places += [place_of.get(name, absent) for name in maybe]
    places += [place_of.get("swapents", zero), place_of[_ADJ if _ADJ in place_of else _OLD_ADJ], comm]
    return itemgetter(*places)


def _scaled(oom_adj: int) -> int:
    """Return the oom_score_adj to which later kernels convert an oom_adj (oom_adj_write, fs/proc/base.c)."""
    return 1000 if oom_adj == _OLD_MOST else int(oom_adj * 1000 / -_OLD_NEVER)


_REASON: Final = re.compile(
    r"(?:(?:Memory cgroup o|O)ut of memory.{0,64}|Out of Memory):(?= $)|Out of memory in UB.{0,64}$"
)
_CONTAINER: Final = re.compile(r"Out of memory in UB ([\w-]{1,64})")
_HOST: Final = "0"
EVENT: Final = "System OOM encountered"
_CUT_PID: Final = re.compile(r" ?(\d{1,10})[ ,]{0,2}")
_SYSTEM_OOM: Final = re.compile(r"System OOM encountered, victim process: (.{1,64}?), pid: (\d{1,10})")
_SCORE: Final = re.compile(r"\) score \d{1,20} or (?:sacrifice|a) child")
_CUT_SCORE: Final = re.compile(r"\)(?: score(?: \d{1,20})?(?: or(?: [a-z ]{0,15})?)?)?[\s\"']{0,8}")
"""The end of a line about the chosen task that was cut before its last word."""

_REAPER: Final = re.compile(r"oom_reaper: (?:reaped process (\d{1,10})|unable to reap pid:(\d{1,10})) \(")
_SIZE: Final = re.compile(r"([a-zA-Z_-]{1,32}): ?(-?\d{1,20})(?: ?(kB))?")
_AFTER_NAME: Final = (") total-vm:", ") vsz:", ")")  # vsz: v2.6.36 to v2.6.38
_NO_SIZES: Final = ("UID", "oom_score_adj")


def chosen(text: str) -> tuple[Chosen, str | None] | None:
    """Return the task of `Memory cgroup out of memory: Kill process 7 (a) score 900 or sacrifice child`,
    which kernels before v5.0 print, and the reason before it; None for any other line."""
    reason, found, rest = text.partition(CHOSEN if CHOSEN in text else OLD_CHOSEN)
    head = KILLED_PID.match(rest)
    if not found or head is None:
        return None
    ends = [one.start() for one in _SCORE.finditer(rest)]
    if not ends and _reason(reason) is not None:
        cut = rest.rfind(")")
        ends = [cut] if cut >= 0 and _CUT_SCORE.fullmatch(rest, cut) is not None else []
    if not ends or ends[-1] < head.end():
        return None
    return Chosen(rest[head.end() : ends[-1]], int(head[1])), _reason(reason)


def killed(text: str, stamp: Stamp) -> Kill | None:
    """Return the kill of `Memory cgroup out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:…`; None
    for any other line.

    The comm is empty or incomplete if the line was cut there (`is_cut_at_pid`).
    """
    reason, found, rest = text.partition(KILLED if KILLED in text else UB_KILLED)
    head = KILLED_PID.match(rest)
    if found and head is None and (cut := _CUT_PID.fullmatch(rest)) is not None:
        return Kill(stamp, int(cut[1]), "", _reason(reason))
    begin = NO_PID.match(rest) if head is None else head
    if not found or begin is None:
        return None
    end = next((at for word in _AFTER_NAME if (at := rest.rfind(word)) >= begin.end()), -1)
    if end < 0 or not fits_comm(rest[begin.end() : end]):
        end = _end_of_comm(rest.partition("\n")[0], begin.end())
    fields = _fields(rest[end:].partition("\n")[0])
    if head is None and not fields and _reason(reason) is None:
        return None  # words of a program
    uid = fields.get("UID") if head is None or head[2] is None else int(head[2])
    return Kill(
        stamp,
        pid=None if head is None else int(head[1]),
        comm=rest[begin.end() : end],
        reason=_reason(reason),
        uid=uid,
        total_vm_bytes=fields.get("total-vm", fields.get("vsz", fields.get("vm"))),
        anon_rss_bytes=fields.get("anon-rss"),
        file_rss_bytes=fields.get("file-rss"),
        shmem_rss_bytes=fields.get("shmem-rss"),
        pgtables_bytes=fields.get("pgtables"),
        oom_score_adj=fields.get("oom_score_adj"),
    )


def _end_of_comm(line: str, begin: int) -> int:
    """Return the end of a name without known words after it: the last bracket within the length of a comm, or
    else the last one of all."""
    brackets = [at for at in range(begin, len(line)) if line[at] == ")"]
    fitting = [at for at in brackets if fits_comm(line[begin:at])]
    return (fitting or brackets or [len(line)])[-1]


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
    path, found, _ = text.lstrip().rpartition(GROUP)
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


@lru_cache(maxsize=64)
def _reason(text: str) -> str | None:
    """Return `Out of memory` or a similar reason at the end of the text, whatever is before it."""
    found = _REASON.search(text.partition(CHOSEN)[0].partition(OLD_CHOSEN)[0])
    return None if found is None else found[0].removesuffix(":")


def container(reason: str) -> str | None:
    """Return the container of OpenVZ in the reason for a kill; None for any other reason, and for the host,
    which has the number 0."""
    found = _CONTAINER.match(reason)
    return None if found is None or found[1] == _HOST else found[1]


def _fields(text: str) -> dict[str, int]:
    """Return the numbers of `anon-rss:4kB, UID:0`: sizes in bytes, other numbers unchanged.

    A size without its unit was cut, and is left out.
    """
    return {
        name: int(number) * (1024 if unit else 1)
        for name, number, unit in _SIZE.findall(text)
        if unit or name in _NO_SIZES
    }


_SUPPRESSED: Final = re.compile(
    r"(?:oom_kill_process|dump_header|out_of_memory): (\d{1,9}) (?:callbacks|messages) suppressed"
)
_DROPPED: Final = re.compile(
    r"\*\* (\d{1,9}) printk messages? dropped|systemd-journald\[\d{1,10}\]: Missed (\d{1,9}) kernel message"
)


def suppressed(text: str) -> int | None:
    """Return the number of reports that the rate limit of oom_kill_process (mm/oom_kill.c) suppressed; None
    for any other line."""
    found = _SUPPRESSED.match(text)
    return None if found is None else int(found[1])


def dropped(text: str) -> int | None:
    """Return the number of lines that the kernel or the journal reports as lost; None for any other line."""
    found = _DROPPED.search(text)
    return None if found is None else int(found[1] or found[2])
