"""The shapes of the lines of an OOM report.

Logs are pasted with prefixes of any form, and broken into pieces by mail programs and terminals. These shapes
alone decide whether a piece is a line of its own, or continues the line before it.

The words that mark the lines are in `markers`.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

from tracer.kernel.kmsg.text.markers import GROUP, LIMIT_OF, STATS, SUMMARY, fits_comm


def shape_of_task_row(text: str, numbers: int) -> re.Match[str] | None:
    """Match a row of the table of tasks (dump_task, mm/oom_kill.c) with this many numbers after the pid.

    The last group is the comm, which follows one space after the last number. None for any other line.
    """
    found = _listed_row(numbers).fullmatch(text)
    return found if found is not None and fits_comm(found[found.re.groups]) else None


@cache
def _listed_row(numbers: int) -> re.Pattern[str]:
    return re.compile(r"\[ *(\d{1,10})\]" + r" +(-?\d{1,20})" * numbers + r" ?(.{0,64})", re.DOTALL)


SUM_NAMES: Final = (
    *("Active", "Active_anon"),  # before v2.6.31
    "active_anon",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "mapped",
    "sec_pagetables",
    "kernel_misc_reclaimable",
    "free",
)
"""The counters that begin a line of the machine's sums (show_free_areas in mm/show_mem.c)."""

_ZONE: Final = r"(?:Node \d{1,4} )?(?:DMA32|DMA|Normal|HighMem|Movable|Device)"
_KINDS: Final = {
    "elision": (
        r"(?:[\[(<{]{0,2} ?(?:\.{2,}|…|-{2,}|(?:snip|trim|cut|skip|elid|omit|truncat)\w{0,6}\b)"
        r"[^\[\]]{0,40}[\])>}]{0,2}|`{3,}.{0,20}|~{3,}.{0,20}|</?[a-z]{1,10}>)\s*$"
    ),
    "summary": r"oom-?(?:$|k$|ki$|kil$|kill$|kill:(?:c\w{0,9})?$|kill:constraint=)",
    "kill": (
        r"(?:Memory cgroup o|O)ut of(?: |$)|Killed process(?: |$)"
        r"|Memory(?:$| cg?r?o?u?p?$| cgroup ou?t?$)"
    ),
    "head": r"CPU: \d{1,9}(?: (?:UID|PID): |$)|Pid: \d{1,10}, comm: ",
    "limit_of": r"Task in /",
    "stats": r"Memory cgroup stats",
    "counter": r"(?:memory|memory\+swap|swap|kmem): usage",
    "columns": r"\[ *pid *\]",
    "task": r"\[ *\d{1,10}\] +\d+ ",
    "zone": rf"{_ZONE} free:\d|Node \d{{1,4}} active_anon:",
    "blocks": rf"{_ZONE}: \d",
    "sums": rf"(?:{'|'.join(SUM_NAMES)}):\d{{1,20}}(?![\dk])",
    "group": r"Tasks in /",
    "reaped": r"oom_reaper: ",
    "row": r"(?!failcnt |limit |order |score |process )[a-z][a-z0-9_]{0,63} \d{1,20}\s*$",
    "frame": (
        r"(?:\[<[0-9a-f]{1,16}>\] ?|(?:\[c[0-9a-f]{15}\] ?){1,2})?(?:\? )?(?:[\w.$]{1,512}\+0x|"
        r"[\w.$]{1,512} from |\([\w.$+/]{1,512}\) from )"
    ),
    "other": (
        r"Mem-Info:|Call [Tt]race:|Backtrace:|Tasks state|Hardware name|Workqueue: |</?TASK>|"
        r"RIP: |RSP: |RAX: |RDX: |RBP: |R1[03]: |Code: |Modules linked|Exception stack|"
        r"lowmem_reserve|Swap cache stats|(?:Free|Total) swap|\d{1,20} (?:total )?page|"
        r"Node \d{1,4} \w|Unreclaimable slab|Name +Used|Memory cgroup min|"
        r"\S{1,64} +\d{1,20}KB +\d{1,20}KB|\S.{0,40} cpuset=|\*\* \d"
    ),
    "header": (
        r"oom-killer: gfp_mask=0x[0-9a-f]{1,8}(?:, order=\d{1,3})?\s*$|\S.{0,40}? invoked"
        r"(?:$| o?o?m?-?$| oom-k?i?l?l?e?r?:? ?$| oom-killer: gfp_mask=)"
    ),
}
_BEGIN: Final = re.compile("|".join(f"(?P<{kind}>{shape})" for kind, shape in _KINDS.items()))
_WHOLE: Final = {
    "summary": re.compile(r",pid= *\d{1,10},uid= *\d{1,10}\s*$"),
    "kill": re.compile(r"oom_score_adj:-?\d{1,4}\s*$|-rss:\d{1,20}kB\s*$|(?:sacrifice|a) child\s*$"),
    "head": re.compile(r" #\d"),
    "limit_of": re.compile(r" limit of /(?:\S{0,4096}[^\s/])?\s*$"),
    "stats": re.compile(r" for /.{0,4096}:\s*$|unevictable:\d{1,20}KB\s*$"),
    "counter": re.compile(r"failcnt \d{1,20}\s*$"),
    "columns": re.compile(r" name\s*$"),
    "task": re.compile(r"\] +(?:-?\d{1,20} +){6,14}(?!-?\d{1,20}\s*$)\S.{0,15}$"),
    "group": re.compile(r" set\s*$"),
    "reaped": re.compile(r"-rss:\d{1,20}kB\s*$"),
    "zone": re.compile(r"(?:all_unreclaimable\? (?:yes|no)|free_cma:\d{1,20}kB)\s*$"),
    "blocks": re.compile(r" = \d{1,20}kB\s*$"),
    "header": re.compile(r"order=-?\d{1,9}(?:, oom_(?:score_)?adj=-?\d{1,9}){1,2}\s*$"),
}
_GOES_ON: Final = {
    "kill": re.compile(r"(?:total-vm|anon-rss|file-rss|shmem-rss|UID|pgtables|oom_score_adj):"),
    "reaped": re.compile(r"(?:file|shmem)-rss:"),
    "zone": re.compile(r"[\w()]{1,64}:\d{1,20}kB"),
    "task": re.compile(r"(?:-?\d{1,20} +){2,14}\S"),
}
"""Kind -> the beginning of a piece that continues a line of that kind, although the line could be
complete."""

_OF_PATHS: Final = {
    "summary": SUMMARY,
    "stats": STATS,
    "limit_of": LIMIT_OF,
    "group": GROUP,
}
_ANCHOR: Final = re.compile(
    r"oom-kill:constraint=|(?:Memory cgroup o|O)ut of memory(?: \(oom_kill_allocating_task\))?: [Kk]ill"
    r"|(?<!: )Killed process \d{1,10},? (?:UID \d{1,10}, )?\(|Memory cgroup stats for /"
    r"|Mem-Info: ?$|Call [Tt]race: ?$|Tasks state \(memory values in pages\): ?$|\[ *pid *\] +uid +tgid "
    r"|CPU: \d{1,9} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: |Pid: \d{1,10}, comm: "
    r"|(?:memory|memory\+swap|swap|kmem): usage \d{1,20} ?kB, limit \d|Task in /\S* killed as "
    r"|active_anon:\d{1,20} inactive_anon:\d|oom_reaper: (?:reaped|unable)"
)
"""Words that begin a line of a report, and that no comm is long enough to hold."""

_PARTS_OF_ANCHORS: Final = (
    *("oom-kill:", "oom_reaper: ", "ut of memory", "Killed process ", "emory cgroup ", "Mem-Info:", "race:"),
    *("Tasks state", " tgid ", "PID: ", "Pid: ", ": usage ", " killed as ", "active_anon:"),
)
"""Parts of `_ANCHOR`, at least one of which is in each text with one of them."""


@lru_cache(maxsize=64)  # each step of the parser asks this about the same line
def kind(text: str) -> str | None:
    """Return the kind of report line that begins like this; None if no kind does."""
    found = _BEGIN.match(text)
    return None if found is None else found.lastgroup


def anchor(line: str) -> int:
    """Return the place in a line at which a message of a report certainly begins; -1 if there is none."""
    if not any(map(line.__contains__, _PARTS_OF_ANCHORS)):
        return -1
    found = _ANCHOR.search(line)
    return -1 if found is None else found.start()


def is_of_report(text: str) -> bool:
    """Return whether a text has words of a message of a report, wherever that begins in it."""
    return " invoked oom-killer: " in text or anchor(text) >= 0


def path_word(text: str) -> str | None:
    """Return the marker of a report line that names a cgroup; None for any other line.

    The path in such a line may contain the markers of all other lines.
    """
    return _OF_PATHS.get(kind(text) or "")


def is_unfinished(text: str, of_kind: str | None) -> bool:
    """Return whether the end of a line of this kind is missing."""
    whole = _WHOLE.get(of_kind or "")
    return whole is not None and whole.search(text) is None


def are_sizes(text: str, piece: str) -> bool:
    """Return whether `piece` has the sizes of the killed process in `text`, whose name is complete."""
    is_kill = kind(text.lstrip()) == "kill" and text.count("(") == text.count(")") > 0
    return is_kill and _GOES_ON["kill"].match(piece.lstrip()) is not None


def goes_on(text: str, of_kind: str | None, piece: str) -> bool:
    """Return whether `piece`, which begins no line of a report, continues this line."""
    if is_unfinished(text, of_kind):
        return True
    more = _GOES_ON.get(of_kind or "")
    return more is not None and of_kind != "task" and more.match(piece.lstrip()) is not None
