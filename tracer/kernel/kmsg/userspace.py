"""Kills by user-space killers in a log: systemd-oomd, oomd, earlyoom, nohang, the kubelet, Talos, lmkd.

They kill before the kernel has to, so there is no report of the kernel. Each writes its reason in a line of
its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MOST_CHARACTERS: Final = 4096
WORDS: Final = re.compile(r"oomd|earlyoom|[sS]end(?:ing)? SIG|evict|Evict|lowmemorykiller|lmkd")
"""Words of which a line about such a kill has at least one."""

_PATTERNS: Final = {
    "systemd-oomd": re.compile(
        r"systemd-oomd(?:\[\d+\])?: (?:\[.{0,20}\] )?Killed (?P<victim>\S{1,1024}) due to "
        r"(?P<reason>.{1,1024})"
    ),
    "oomd": re.compile(
        r"oomd kill: .{0,200}?(?P<victim>\S*[/.]\S*) (?P<pid>\d{1,19}) (?P<reason>ruleset:\[.{1,1024})"
    ),
    "earlyoom": re.compile(
        r"(?:earlyoom.{0,20}: )?sending SIG(?:TERM|KILL) to process (?P<pid>\d{1,10})(?: uid \d{1,10})? "
        r"\"(?P<victim>[^\"]{0,64})\": (?P<reason>.{1,1024})"
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
        r"(?:lowmemorykiller|lmkd).{0,20}: Kill(?:ing)? '(?P<victim>[^']{0,255})' \((?P<pid>\d{1,10})\)"
        r"(?P<reason>.{1,1024})"
    ),
}


@dataclass(frozen=True, slots=True)
class UserspaceKill:
    """A kill by a user-space killer. `victim` is a process, a cgroup or a pod, by the killer's words; None if
    the line does not name it."""

    line: int
    killer: str
    victim: str | None
    pid: int | None
    reason: str


def kill(line: str, number: int) -> UserspaceKill | None:
    """Return the kill by a user-space killer in a line; None for any other line."""
    if WORDS.search(line) is None:
        return None
    for killer, pattern in _PATTERNS.items():
        found = pattern.search(line, 0, _MOST_CHARACTERS)
        if found is None:
            continue
        named = found.groupdict()
        pid = named.get("pid")
        return UserspaceKill(
            line=number,
            killer=killer.partition(" ")[0],
            victim=named["victim"],
            pid=None if pid is None else int(pid),
            reason=named["reason"].strip(" ,.;\"'"),
        )
    return None
