"""Kills in a log that have no report of the kernel's OOM killer.

User-space killers (systemd-oomd, oomd, earlyoom, nohang, the kubelet, Talos, lmkd) and Android's old driver
lowmemorykiller kill before the OOM killer has to. Each writes its reason in its own kind of line. systemd,
Slurm, containerd, Docker and Kubernetes report a kill by the OOM killer in one of their units, job steps or
containers, even if the kernel's own lines are in another log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MOST_CHARACTERS: Final = 4096
WORDS: Final = re.compile(
    r"oomd|earlyoom|[sS]end(?:ing)? SIG|[Ee]viction manager|Evicted|lowmemorykiller|lmkd"
    r"|killed by the OOM killer|[kK]illing process .{1,80}signal|slurmstepd"
    r"|result 'oom-kill'|TaskOOM|OOMKilled"
)
"""Words, at least one of which is in each line about such a kill."""

_PARTS: Final = (
    *("oomd", "earlyoom", "end SIG", "ending SIG", "viction manager", "Evicted"),
    *("lowmemorykiller", "lmkd", "killed by the OOM killer", "illing process ", "slurmstepd"),
    *("result 'oom-kill'", "TaskOOM", "OOMKilled"),
)
"""Parts of `WORDS`, at least one of which is in each text with one of them. A search for them takes a tenth
of the time."""

_PARTS_IN_BYTES: Final = tuple(part.encode() for part in _PARTS)

_DRIVER: Final = "lowmemorykiller"
"""The driver of Android's kernels before v4.12 (drivers/staging/android/lowmemorykiller.c). lmkd, which
replaced the driver, logs under the same name, with the uid after the pid."""

_OF_KERNEL: Final = "kernel"
_OF_EITHER: Final = "kernel/systemd-oomd"
"""systemd gives the result of a unit the same name for both (unit_notify_cgroup_oom, src/core/unit.c)."""
_DETECTED: Final = "Detected "
_REPORTERS: Final = {_DETECTED: "Slurm", "TaskOOM": "containerd", "OOMKilled": "Kubernetes or Docker"}
"""Beginning of the reason -> who reports a kill by the OOM killer; else systemd does."""

_PATTERNS: Final = {
    "systemd-oomd": re.compile(
        r"systemd-oomd(?:\[\d+\])?: (?:\[.{0,20}\] )?(?:Killed|Marked) (?P<victim>\S{1,1024}) "
        r"(?:for killing )?due to (?P<reason>.{1,1024})"
    ),
    "systemd-oomd cut": re.compile(
        r"systemd-oomd(?:\[\d+\])?: (?P<reason>Killed) (?P<victim>/\S{1,1024}) ?(?:due(?: to)?)?\s?$"
    ),
    "systemd-oomd unit": re.compile(
        r"(?P<victim>[^\s:]{1,255}): systemd-oomd "
        r"(?P<reason>killed (?:\d{1,10}|some) process(?:\(?es\)?)?.{0,64})"
    ),
    _OF_KERNEL: re.compile(
        r"(?P<victim>[^\s:]{1,255}): (?P<reason>A process of this unit has been killed by the OOM killer)"
    ),
    f"{_OF_KERNEL} job": re.compile(
        rf"slurmstepd: error: (?P<reason>{_DETECTED}\d{{1,10}} oom[-_]kill events?(?:\(s\))?) in "
        r"(?P<victim>(?:StepId=|step )[^\s]{1,64}[^\s.])"
    ),
    _OF_EITHER: re.compile(r"(?P<victim>[^\s:]{1,255}): (?P<reason>Failed with result 'oom-kill')"),
    f"{_OF_KERNEL} container": re.compile(
        r"(?P<reason>TaskOOM)\b.{0,80}?(?:ContainerID|container_id)[\\\":= ]{1,8}(?P<victim>[\w.-]{1,128})"
    ),
    f"{_OF_KERNEL} pod": re.compile(
        r"(?:\b[Rr]eason\"?[:=]\s{0,40}\"?|^(?:\S{1,253}\s+)?(?P<victim>\S{1,253})\s+\d+/\d+\s+(?:Init:)?)"
        r"(?P<reason>OOMKilled)\b"
    ),
    f"{_OF_KERNEL} inspected": re.compile(r"\"(?P<reason>OOMKilled)\"(?P<victim>): ?true"),
    _DRIVER: re.compile(
        r"lowmemorykiller: Killing '(?P<victim>[^']{0,255})' \((?P<pid>\d{1,10})\)(?: \(tgid \d{1,10}\))?, "
        r"(?P<reason>(?!uid )(?:score_)?adj.{1,1024})"
    ),
    f"{_DRIVER} sigkill": re.compile(
        r"lowmemorykiller: send sigkill to (?P<pid>\d{1,10}) \((?P<victim>[^)]{0,255})\), "
        r"(?P<reason>.{1,1024})"
    ),
    "oomd": re.compile(
        r"oomd kill: .{0,200}?(?P<victim>\S*[/.]\S*) (?P<pid>\d{1,19}) (?P<reason>ruleset:\[.{1,1024})"
    ),
    "earlyoom": re.compile(
        r"(?:earlyoom.{0,20}: )?sending SIG(?:TERM|KILL) to process (?P<pid>\d{1,10})(?: uid \d{1,10})? "
        r"\"(?P<victim>[^\"]{0,64})\": (?P<reason>.{1,1024})"
    ),
    "earlyoom 1.2": re.compile(
        r"[kK]illing process (?P<pid>\d{1,10}) \"(?P<victim>[^\"]{0,64})\" with signal \d{1,2}: "
        r"(?P<reason>.{1,1024})"
    ),
    "earlyoom 1.1": re.compile(
        r"Killing process '(?P<victim>[^']{0,64})' with signal \d{1,2}, pid: (?P<pid>\d{1,10}), "
        r"(?P<reason>.{1,1024})"
    ),
    "kubelet": re.compile(
        r"(?P<reason>[Ee]viction manager: pods? (?:\S{1,255} )?(?:is )?evicted(?: successfully)?)\"?"
        r"(?:.{0,80}?\bpods?=\"?\[?\"?(?P<victim>[^\"\s\]]{1,255}))?"
    ),
    "kubelet event": re.compile(
        r"\bEvicted\b.{0,80}?(?:pod/(?P<victim>\S{1,255}).{0,80}?)?"
        r"(?P<reason>The node was low on resource: .{1,1024})"
    ),
    "nohang": re.compile(
        r"(?P<reason>Send SIG(?:TERM|KILL) to the (?P<victim>victim));? ?(?:total response time|$)"
    ),
    "Talos": re.compile(
        r"\[talos\] (?P<reason>Sending SIGKILL to cgroup) \{.{0,200}?\"cgroup\": \"(?P<victim>[^\"]{1,1024})"
    ),
    "lmkd": re.compile(
        r"(?:lowmemorykiller|lmkd).{0,20}: (?:Kill(?:ing)?|Reclaim) '(?P<victim>[^']{0,255})' "
        r"\((?P<pid>\d{1,10})\)(?P<reason>.{1,1024})"
    ),
}


@dataclass(frozen=True, slots=True)
class OtherKill:
    """A kill. `victim` is a process, a cgroup, a unit or a pod, by the killer's words; None if the line does
    not name it. `killer` is `kernel` for a kill by the OOM killer that only its `reporter` has."""

    line: int
    killer: str
    victim: str | None
    pid: int | None
    reason: str

    @property
    def is_in_kernel(self) -> bool:
        """Return whether the killer is a part of the kernel."""
        return self.killer == _DRIVER or self.is_by_oom_killer

    @property
    def is_by_oom_killer(self) -> bool:
        """Return whether the `reporter` names the kernel's OOM killer as the killer, or as one of two."""
        return self.killer == _OF_KERNEL or self.is_by_either

    @property
    def is_by_either(self) -> bool:
        """Return whether the killer was the kernel's OOM killer or systemd-oomd."""
        return self.killer == _OF_EITHER

    @property
    def reporter(self) -> str:
        """Return who reports a kill by the OOM killer."""
        found = (name for reason, name in _REPORTERS.items() if self.reason.startswith(reason))
        return next(found, "systemd")

    def is_again(self, other: OtherKill) -> bool:
        """Return whether the same process is sent a signal again: it survived the one before."""
        return self.pid is not None and (self.killer, self.pid, self.victim) == (
            other.killer,
            other.pid,
            other.victim,
        )


def without_copies(kills: Iterable[OtherKill]) -> list[OtherKill]:
    """Return the kills without further lines about the same kill, and without signals that did not kill.

    systemd-oomd marks a cgroup and kills it, and systemd then names the unit, the last part of the cgroup's
    path. The result of a unit comes last.
    """
    kept: list[OtherKill] = []
    units: dict[str, str] = {}
    without_result: set[str] = set()
    for one in kills:
        path = one.victim or ""
        unit = path.rpartition("/")[2]
        if one.is_by_either and unit in without_result:
            without_result.remove(unit)
            continue
        if not one.is_by_either:
            without_result.add(unit)
        if one.killer == "systemd-oomd" and units.get(unit, one.reason) != one.reason:
            del units[unit]
            continue
        if one.killer == "systemd-oomd":
            units[unit] = one.reason
        if kept and one.is_again(kept[-1]):
            kept.pop()
        kept.append(one)
    return kept


def may_have_kill(text: bytes) -> bool:
    """Return whether any line of a text may be about such a kill."""
    return any(map(text.__contains__, _PARTS_IN_BYTES))


def kill(line: str, number: int) -> OtherKill | None:
    """Return the kill in a line; None for any other line, including the lines of a kernel report."""
    if not any(map(line.__contains__, _PARTS)) or WORDS.search(line) is None:
        return None
    for killer, pattern in _PATTERNS.items():
        found = pattern.search(line, 0, _MOST_CHARACTERS)
        if found is None:
            continue
        named = found.groupdict()
        pid = named.get("pid")
        return OtherKill(
            line=number,
            killer=killer.partition(" ")[0],
            victim=named["victim"] or None,
            pid=None if pid is None else int(pid),
            reason=named["reason"].strip(" ,.;\"'"),
        )
    return None
