"""The line that names the limit that was hit and the chosen task.

It is `oom-kill:constraint=…` since ef8444ea01d7 ("mm, oom: reorganize the oom report in dump_header"), v5.0,
and `Task in /a/b killed as a result of limit of /a` before. A comm or a path may contain any of the
words around it. So a comm is bounded by its length (TASK_COMM_LEN), and numbers are read where no name can
follow. If two paths can be read in several ways, the reading is taken in which the victim's cgroup is the
cgroup of the limit, or one below it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tracer.kernel.kmsg.report.log_report import Chosen, Constraint
from tracer.kernel.kmsg.text.markers import LIMIT_OF, SUMMARY, fits_comm

_MOST_SPLITS: Final = 64
_CONSTRAINTS: Final[Mapping[str, Constraint]] = {
    "CONSTRAINT_NONE": "global",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "mempolicy",
    "CONSTRAINT_MEMCG": "memcg",
}
_OTHER_CONSTRAINT: Final = re.compile(r"CONSTRAINT_[A-Z0-9_]{1,64}")
_TASK_MEMCG: Final = ",task_memcg="
_NODES: Final = r"\(null\)|[\d,-]*"
_MEMS: Final = re.compile(rf",mems_allowed=({_NODES}),(?:(global_oom),|oom_memcg=)")
_NODEMASK: Final = re.compile(r"CONSTRAINT_\w{1,64}, ?nodemask=([\d,-]{1,256}), ?cpuset=")
_SPACED: Final = re.compile(
    r",\s{1,40}(?=(?:cpuset|mems_allowed|oom_memcg|task_memcg|task|pid|uid)=|global_oom,)"
)
"""The space between two fields at which a user wrapped the line again."""

_PID_UID: Final = re.compile(r",pid= *(\d{1,10}) ?,(?: ?uid= *(\d{1,10})\s*|[^,]{0,16})")
"""The pid is whole with the comma after it, also if the line was cut before the end of the uid."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The facts of the `oom-kill:` line; None for a missing fact."""

    constraint: str
    nodemask: str | None = None
    mems_allowed: str | None = None
    oom_memcg: str | None = None
    task_memcg: str | None = None
    chosen: Chosen | None = None


def summary(text: str, comm: str | None = None) -> Summary | None:
    """Return the facts of `oom-kill:constraint=…`, before the cut if the line was cut; None for any other
    line.

    `comm` is the name of the chosen task, if another line has it.
    """
    _, found, body = text.partition(SUMMARY)
    if not found:
        return None
    word, _, rest = body.partition(",")
    if rest[:1] == " ":
        rest = _SPACED.sub(",", f",{rest}")[1:]
    is_of_bpf = rest and _OTHER_CONSTRAINT.fullmatch(word) is not None
    constraint = _CONSTRAINTS.get(word, word if is_of_bpf else "unknown")
    chosen, rest = _chosen(rest, comm)
    mems = _MEMS.search(rest)
    # Early kernels with this line print no cpuset.
    paths = rest[mems.end() :] if mems is not None else f",{rest}".partition(",oom_memcg=")[2]
    owner, victim = _paths(paths, is_global=mems is not None and mems[2] is not None, is_cut=chosen is None)
    nodemask = _NODEMASK.match(body)
    return Summary(
        constraint,
        None if nodemask is None else nodemask[1],
        None if mems is None else mems[1],
        owner,
        victim,
        chosen,
    )


def limit_of(text: str) -> tuple[str, str | None] | None:
    """Return (cgroup of the task, cgroup of the limit) of `Task in /a/b killed as a result of limit of /a`;
    None for any other line.

    The cgroup of the limit is None if the line ends within its path.
    """
    if not text.startswith("Task in "):
        return None
    body = text[len("Task in ") :]
    for at in _places(body, LIMIT_OF):
        task, owner = body[:at], body[at + len(LIMIT_OF) :]
        if owner.rstrip().endswith("/") and owner.rstrip() != "/":
            return task, None
        if _is_within(task, owner):
            return task, owner
        if _is_within(task, owner.rstrip()):  # pasted with spaces at the end
            return task, owner.rstrip()
    return None


def _chosen(text: str, comm: str | None) -> tuple[Chosen | None, str]:
    """Return the task at the end of the line, and the text before it.

    Its name may begin at several places. It is read at the place that gives `comm`, or else at the first
    place that gives a name no longer than a comm.
    """
    at = text.rfind(",pid=")
    numbers = _PID_UID.fullmatch(text, at) if at >= 0 else None
    if numbers is None:
        return None, text
    names = [(place, text[place + len(",task=") : at]) for place in _places(text[:at], ",task=", last=True)]
    fitting = [name for name in names if name[1] == comm] or [name for name in names if fits_comm(name[1])]
    if not fitting:
        return None, text
    begin, name = fitting[0]
    uid = None if numbers[2] is None else int(numbers[2])
    return Chosen(name, int(numbers[1]), uid), text[:begin]


def _paths(text: str, *, is_global: bool, is_cut: bool) -> tuple[str | None, str | None]:
    """Return (cgroup of the limit, cgroup of the victim) of `/a,task_memcg=/a/b`.

    If `is_cut`, the last of them may be incomplete, and is None.
    """
    if is_cut:
        whole, found, _ = text.rpartition(",task=")
        if is_global and not found:
            return None, None
        text = whole if found else f"{text.rpartition(_TASK_MEMCG)[0]}{_TASK_MEMCG}"
    if is_global:
        return None, text.removeprefix(_TASK_MEMCG[1:]) or None
    for at in _places(text, _TASK_MEMCG):
        owner, victim = text[:at], text[at + len(_TASK_MEMCG) :]
        if _is_within(victim, owner):
            return owner, victim
    owner, _, victim = text.partition(_TASK_MEMCG)
    return owner or None, victim or None


def _is_within(path: str, ancestor: str) -> bool:
    return path.startswith("/") and (path == ancestor or path.startswith(ancestor.rstrip("/") + "/"))


def _places(text: str, word: str, *, last: bool = False) -> list[int]:
    """Return the places of `word`, in order: the first `_MOST_SPLITS` of them, or the last."""
    places: list[int] = []
    at = text.rfind(word) if last else text.find(word)
    while at >= 0 and len(places) < _MOST_SPLITS:
        places.append(at)
        at = text.rfind(word, 0, at) if last else text.find(word, at + 1)
    return places[::-1] if last else places
