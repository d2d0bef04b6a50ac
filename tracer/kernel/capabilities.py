"""The capabilities of this process (capabilities(7)), and the cost of each one that a recording lacks.

Each cost was measured: a recorder without the capability recorded a kill of another user's process. The
service, a container and a pod have different sets; `doctor` shows which capabilities are missing here.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Final, Self

OOM_SCORE_ADJ: Final = -900
"""The value that `watch` sets for itself, as systemd-oomd's service does: the OOM killer chooses `watch`
last."""


_SYMBOLS_READ: Final = 200  # the first ones may be at 0: variables of a CPU


class Capability(IntEnum):
    """Capabilities by number (include/uapi/linux/capability.h)."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


@dataclass(frozen=True)
class Credentials:
    """The effective user and capabilities of this process, and the permissions that replace capabilities.

    `hides_addresses`: the kernel shows no addresses of its functions. `oom_score_adj` is the present value.
    `has_real_time`: a real-time priority is permitted without CAP_SYS_NICE (RLIMIT_RTPRIO).
    """

    user: int
    held: int
    hides_addresses: bool
    oom_score_adj: int
    has_real_time: bool

    @classmethod
    def own(cls, proc: Path = Path("/proc")) -> Self:
        """Return the credentials of this process. Raises OSError if there is no /proc."""
        status = (proc / "self/status").read_text("ascii", "replace")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return cls(
            user=int(fields["Uid"].split()[1]),
            held=int(fields["CapEff"], 16),
            hides_addresses=_hides_addresses(proc / "kallsyms"),
            oom_score_adj=int((proc / "self/oom_score_adj").read_text("ascii")),
            has_real_time=resource.getrlimit(resource.RLIMIT_RTPRIO)[0] != 0,
        )

    def has(self, *capabilities: Capability) -> bool:
        """Return whether this process has one of these capabilities."""
        return any(self.held >> capability & 1 for capability in capabilities)

    def missing_to_load(self) -> list[str]:
        """Return the names of the capabilities without which no program can be loaded.

        CAP_SYS_ADMIN stands for both (bpf_capable() and perfmon_capable() in include/linux/capability.h).
        """
        needed = (Capability.BPF, Capability.PERFMON)
        return [f"CAP_{one.name}" for one in needed if not self.has(one, Capability.SYS_ADMIN)]

    def losses(self) -> Iterator[tuple[Capability, str]]:
        """Yield each other missing capability, and what a recording lacks without it."""
        if self.hides_addresses and not self.has(Capability.SYSLOG):
            yield Capability.SYSLOG, "functions of the kernel in stacks are numbers"
        if not self.has(Capability.SYS_PTRACE):
            yield (
                Capability.SYS_PTRACE,
                "functions of other users' programs in stacks are numbers, and their command lines, mappings "
                "and files of shared memory are not known",
            )
        # Directories such as /proc/PID/fd belong to the user of the process.
        elif not self.has(Capability.DAC_READ_SEARCH, Capability.DAC_OVERRIDE):
            yield (
                Capability.DAC_READ_SEARCH,
                "the files of shared memory that other users' processes have are not known",
            )
        # proc_map_files_get_link() in fs/proc/base.c
        elif not self.has(Capability.CHECKPOINT_RESTORE, Capability.SYS_ADMIN):
            yield (
                Capability.CHECKPOINT_RESTORE,
                "shared memory that is mapped but not open (System V, shared anonymous) is not known",
            )
        if self.oom_score_adj > OOM_SCORE_ADJ and not self.has(Capability.SYS_RESOURCE):
            yield Capability.SYS_RESOURCE, "the OOM killer may choose `watch`, which cannot lower its score"
        if not self.has_real_time and not self.has(Capability.SYS_NICE):
            yield Capability.SYS_NICE, "on a busy machine the recorder waits for a CPU, and may lose records"
        if not self.has(Capability.SYS_ADMIN):
            yield Capability.SYS_ADMIN, "the cost of an event cannot be measured"


def _hides_addresses(symbols: Path) -> bool:
    """Return whether the kernel shows zeros for addresses (kallsyms_show_value(), kernel/ksyms_common.c)."""
    try:
        with symbols.open("rb") as stream:
            lines = islice(stream, _SYMBOLS_READ)
            return not any(line.split(b" ")[0].strip(b"0") for line in lines)
    except OSError:
        return True
