"""Programs that are known to end others by SIGKILL: what each does, and where its reason can be read.

The kernel gives a sender's name, its first 15 bytes, which any program may choose. So the words say what a
program of that name does, and not what this one meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
