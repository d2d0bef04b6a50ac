"""The lines that name the task whose allocation invoked the OOM killer, and its call trace.

From dump_header (mm/oom_kill.c) and dump_stack_print_info (lib/dump_stack.c). A comm may contain any of the
words around it, so it is bounded by its length (TASK_COMM_LEN).
"""

from __future__ import annotations

import re
from typing import Final

from tracer.kernel.kmsg.report.log_report import Invoker
from tracer.kernel.kmsg.report.nodes import Nodemask
from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.line_markers import INVOKED, fits_comm

_ASKED: Final = " invoked "
_GFP: Final = re.compile(r"(0x[0-9a-f]{1,16}|0)(?:\(([^()]{0,1000})\))?")
_NODEMASK: Final = re.compile(r" nodemask=(\(null\)|[\d,-]*?),?( {1,2})")
_ORDER: Final = re.compile(r" order=(-?\d{1,9})\b")
_HEAD: Final = re.compile(
    r"(?:CPU: \d{1,9} (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm:(?: |$)|Pid: (\d{1,10}), comm: )"
)
_TAINT: Final = re.compile(r" (?:Kdump: loaded )?(Not tainted|Tainted: [A-Z -]{1,80}?) +(\S{1,255}) #")
_CPUSET_MEMS: Final = re.compile(r" mems_allowed=([\d,-]*)\s*")
_OFFSET: Final = r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
_FRAME: Final = re.compile(
    r" *(?:\[<?[0-9a-f]{1,16}>?\] ?){0,2}(\? )?"
    rf"(?:([\w.$]{{1,512}}{_OFFSET})"
    rf"|\(?([\w.$]{{1,512}})\)? from (?:\[<[0-9a-f]{{1,16}}>\] )?\(?[\w.$]{{1,512}}{_OFFSET})"
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


def frame(text: str) -> tuple[str, bool] | None:
    """Return a frame of the call trace, and whether it is reliable (the kernel marks others with `?`); None
    for any other line.

    The frame of 32-bit ARM's `a from b+0x1/0x2` is a.
    """
    found = _FRAME.match(text)
    return None if found is None else (found[2] or found[3], found[1] is None)
