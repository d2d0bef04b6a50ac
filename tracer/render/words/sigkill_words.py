"""Sentences about a SIGKILL that was not the OOM killer's: who sent it, in which way, and why it may be; and
what is known of programs that send it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.kernel.cgroups.containers import shown_name
from tracer.render.words.escape import visible
from tracer.units import count, duration, in_percent, percent, size

_WAYS: Final = {
    "group": "to its process group",
    "parent_death": "because its parent ended (PR_SET_PDEATHSIG)",
    "pid_namespace": "because the init of its pid namespace ended",
    "cgroup_kill": "to all of its cgroup (cgroup.kill)",
}
"""Way -> the words after the sender. The others need none."""
_WITH_ITSELF: Final = {"group": ", with its process group", "cgroup_kill": ", with its cgroup"}

_BY_AN_END: Final = {"parent_death": "{its} parent", "pid_namespace": "the init of {its} pid namespace"}
"""Way of a kill that follows the end of another process -> that process."""
_LONG_STOP_S: Final = 0.5
_LONGEST_STOP_S: Final = 3600.0
"""The time from SIGTERM to SIGKILL within which the two are one stop."""
_NEAR_LIMIT: Final = 0.9
_MOST_SENDERS: Final = 3


def clock(time: datetime) -> str:
    """Return `20:14:03 UTC`."""
    return f"{time:%H:%M:%S} UTC"


def process(one: Party) -> str:
    """Return `web (pid 7)`, not escaped."""
    return f"{one.comm or 'a process'} (pid {one.pid})"


def in_a_line(kill: Sigkill, number: int, place: str = "", when: str = "") -> str:
    """Return `SIGKILL to web (pid 7) in shop at 20:14:03 UTC: sent by timeout (pid 3)`, not escaped.

    For the last of several: `SIGKILL to 12 more processes in shop, the last at 20:14:03 UTC: web (pid 7),
    sent by timeout (pid 3)`.
    """
    inside, moment = f" in {place}" if place else "", f" at {when}" if when else ""
    if number == 1:
        return f"SIGKILL to {process(kill.target)}{inside}{moment}: {sent_by(kill)}"
    many = f"SIGKILL to {count(number)} more processes{inside}, the last{moment}"
    return f"{many}: {process(kill.target)}, {sent_by(kill)}"


def sent_by(kill: Sigkill) -> str:
    """Return `sent by timeout (pid 3), child of bash (2)`, not escaped."""
    way = _WAYS.get(kill.way)
    if kill.sender is None:
        is_seccomp = kill.way == "seccomp"
        return "by seccomp, which forbids its system call" if is_seccomp else "sent by the kernel"
    if kill.sender.pid == kill.target.pid:
        return "sent by itself" + _WITH_ITSELF.get(kill.way, "")
    parents = _line(kill.parents)
    return f"sent by {process(kill.sender)}{parents}" + (f", {way}" if way else "")


def _line(parents: Sequence[Party]) -> str:
    """Return `, child of runc (pid 3)`; empty for a child of the machine's init."""
    return "".join(f", child of {process(one)}" for one in parents[:1] if one.pid > 1)


def sentence(kill: Sigkill) -> str:
    """Return `Not an OOM kill: runc (pid 9) sent SIGKILL to web (pid 7) in shop at 20:14:03 UTC, 10 s after
    SIGTERM: a stop that took too long.`, with the advice for a known sender, not escaped."""
    return " ".join([_what_happened(kill), *_advice(kill)])


def _what_happened(kill: Sigkill) -> str:
    after = "" if kill.since_sigterm_s is None else f", {duration(kill.since_sigterm_s)} after SIGTERM"
    why = _reason(kill)
    reason = f": {why}" if why else ""
    return f"Not an OOM kill: {_event(kill)}{after}{reason}.{_memory(kill)}"


def _event(kill: Sigkill) -> str:
    place, moment = _place(kill.target), "" if kill.time is None else f" at {clock(kill.time)}"
    where = (f" in {place}" if place else "") + moment
    target = f"{process(kill.target)}{where}"
    if kill.sender is None:
        if kill.way == "seccomp":
            return f"seccomp, which forbids its system call, ended {target}"
        return f"the kernel sent SIGKILL to {target}"
    if kill.sender.pid == kill.target.pid:
        return f"{process(kill.target)} sent SIGKILL to itself{where}" + _WITH_ITSELF.get(kill.way, "")
    line = _line(kill.parents)
    comma = "," if line else ""
    sender = f"{process(kill.sender)}{_elsewhere(kill.sender, kill.target)}{line}"
    if kill.way == "parent_death":
        return f"{target} got SIGKILL because its parent {sender}{comma} ended (PR_SET_PDEATHSIG)"
    if kill.way == "pid_namespace":
        return f"{target} got SIGKILL because {sender}, the init of its pid namespace, ended"
    way = _WAYS.get(kill.way)
    return f"{sender}{comma} sent SIGKILL to {target}" + (f", {way}" if way else "")


def _place(one: Party) -> str:
    """Return the container of a process, else the last name of its cgroup's path; empty: not known."""
    return "" if one.cgroup is None else shown_name(one.cgroup, one.container)


def _elsewhere(sender: Party, target: Party) -> str:
    """Return ` in agent` for a sender in a container that is not the target's."""
    is_elsewhere = sender.container is not None and sender.container != target.container
    return f" in {_place(sender)}" if is_elsewhere else ""


def _reason(kill: Sigkill) -> str | None:
    """Return what the sender does, if it is known by name, and whether it had asked for an end before."""
    if kill.sender is None or not _is_by_another(kill):
        return None
    known = known_sender(kill.sender.comm)
    if known is not None and not known.has_grace:
        return known.does
    if kill.since_sigterm_s is not None and _LONG_STOP_S <= kill.since_sigterm_s <= _LONGEST_STOP_S:
        return "a stop that took too long"
    if known is None or (known.name == "timeout" and kill.since_sigterm_s is not None):
        return None
    return known.does


def _is_by_another(kill: Sigkill) -> bool:
    """Return whether another process sent the signal on purpose."""
    return kill.sender is not None and kill.sender.pid != kill.target.pid and kill.way not in _BY_AN_END


def _memory(kill: Sigkill) -> str:
    """Return how full the cgroup was, and how long its tasks waited for memory, which may be why a probe
    failed or a stop took long."""
    said = list[str]()
    if kill.limit_bytes and kill.usage_bytes is not None:
        is_near = kill.usage_bytes / kill.limit_bytes >= _NEAR_LIMIT
        said.append(
            f"its cgroup used {size(kill.usage_bytes)} of {size(kill.limit_bytes)}"
            f" ({percent(kill.usage_bytes, kill.limit_bytes)}){', near its limit' * is_near}"
        )
    if kill.pressure_share:
        whose = "it" if said else "its cgroup"
        said.append(
            f"just before, a task of {whose} waited for memory {in_percent(kill.pressure_share)} of the time"
        )
    text = "; ".join(said)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _advice(kill: Sigkill) -> list[str]:
    """Return the advice for a known sender; nothing for others."""
    known = None if kill.sender is None or not _is_by_another(kill) else known_sender(kill.sender.comm)
    return [known.advice] if known is not None and known.advice else []


def sentences(kills: Sequence[Sigkill], most: int, rest: str = "--json lists all") -> list[str]:
    """Return the sentences about the newest kills, and how many more there are, escaped. `rest` says where
    these are listed. Advice comes once."""
    shown, given = list[str](), set[str]()
    for kill in kills[: -most - 1 : -1]:
        advice = [words for words in _advice(kill) if words not in given]
        given.update(advice)
        shown.append(visible(" ".join([_what_happened(kill), *advice])))
    more = len(kills) - len(shown)
    processes = "1 more process was" if more == 1 else f"{count(more)} more processes were"
    return [*shown, *([f"{processes} ended by SIGKILL before that: {rest}."] * (more > 0))]


def beside_kills(kills: Sequence[Sigkill], rest: str = "--json lists them") -> str | None:
    """Return `SIGKILL of others ended 3 more processes (timeout 2, runc 1); 1 more process ended with the
    init of its pid namespace (sh 1): --json lists them.`, escaped, for a trace with OOM kills; None without
    such a process. `rest` says where they are listed.
    """
    sent = [kill for kill in kills if kill.way not in _BY_AN_END]
    parts = [f"SIGKILL of others ended {_more(sent)}"] if sent else []
    for way, whose in _BY_AN_END.items():
        if ended := [kill for kill in kills if kill.way == way]:
            its = "its" if len(ended) == 1 else "their"
            parts.append(_more(ended, f" ended with {whose.format(its=its)}"))
    return f"{'; '.join(parts)}: {rest}." if parts else None


def _more(kills: Sequence[Sigkill], how: str = "") -> str:
    """Return `3 more processes{how} (timeout 2, runc 1)`, escaped: the names are those of the senders."""
    senders = Counter(kill.sender.comm if kill.sender is not None else "the kernel" for kill in kills)
    named = [f"{visible(sender)} {count(number)}" for sender, number in senders.most_common(_MOST_SENDERS)]
    named += ["others"] * (len(senders) > _MOST_SENDERS)
    processes = "1 more process" if len(kills) == 1 else f"{count(len(kills))} more processes"
    return f"{processes}{how} ({', '.join(named)})"


_NAME_BYTES: Final = 15  # TASK_COMM_LEN less its zero (include/linux/sched.h)


@dataclass(frozen=True, slots=True)
class KnownSender:
    """A program by its name. `does` goes on after a colon, `advice` is a sentence. If `has_grace`, it sends
    SIGTERM first, so a SIGKILL some time after that is a stop that took too long."""

    name: str
    does: str
    advice: str = ""
    has_grace: bool = True


_RUNTIME: Final = "its container runtime killed it"
_OF_A_CONTAINER: Final = (
    "The runtime was asked to: a stop, a failed liveness probe or an eviction; `kubectl describe pod` or "
    "`docker events` has it."
)

KNOWN_SENDERS: Final = (
    KnownSender(
        "systemd-oomd",
        "systemd's OOM killer in user space, which kills a whole cgroup for its memory pressure, or when "
        "swap is nearly full",
        "`journalctl -u systemd-oomd` has the reason, `oomctl` the limits (ManagedOOMMemoryPressure= and "
        "ManagedOOMSwap= of the units above).",
        has_grace=False,
    ),
    KnownSender(
        "earlyoom",
        "an OOM killer in user space, which acts when the machine has little memory and swap left, whatever "
        "the limit of the cgroup",
        "`journalctl -u earlyoom` has the reason; its options -m and -s are the thresholds.",
        has_grace=False,
    ),
    KnownSender(
        "nohang",
        "an OOM killer in user space, which acts when the machine has little memory and swap left, or under "
        "memory pressure",
        "`journalctl -u nohang` has the reason; /etc/nohang/nohang.conf has the thresholds.",
        has_grace=False,
    ),
    KnownSender(
        "oomd",
        "an OOM killer in user space, which acts on the rules of its configuration, such as pressure",
        "The log of oomd names the ruleset.",
        has_grace=False,
    ),
    KnownSender("timeout", "its time was over"),
    KnownSender(
        "systemd",
        "systemd ended what was left of the unit",
        "`journalctl -u` of the unit has the reason; TimeoutStopSec= is the time from SIGTERM to SIGKILL.",
    ),
    *(
        KnownSender(name, _RUNTIME, _OF_A_CONTAINER)
        for name in ("runc", "crun", "containerd-shim-runc-v2", "dockerd", "conmon", "podman")
    ),
)
_BY_COMM: Final = {one.name[:_NAME_BYTES]: one for one in KNOWN_SENDERS}


def known_sender(comm: str) -> KnownSender | None:
    """Return the program of that name; None: not known. Stages of runc are called `runc:[2:INIT]`."""
    return _BY_COMM.get(comm.partition(":")[0])
