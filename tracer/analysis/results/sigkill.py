"""A SIGKILL that ended a process and was not the OOM killer's, as the event line and `explain` show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from tracer.schema import UNLIMITED_BYTES

if TYPE_CHECKING:
    import pandas as pd

PARENTS: Final = ("parent1", "parent2", "parent3")
"""The parties of a row of `sigkills` that are parents of the sender, the nearest first."""

PRESSURE_WINDOW_S: Final = 10
"""The time before a SIGKILL whose memory pressure is shown, in s: the shortest average of memory.pressure."""


class ParentObject(TypedDict):
    """A process above the sender, in the JSON."""

    pid: int
    comm: str


class PartyObject(ParentObject):
    """A `Party` in the JSON."""

    cgroup: str | None
    container: str | None


class SenderObject(PartyObject):
    """The sender in the JSON, with the processes above it, its parent first."""

    parents: list[ParentObject]


class SigkillObject(TypedDict):
    """A `Sigkill` in the JSON, with its meanings."""

    time: str | None
    target: PartyObject
    sender: SenderObject | None
    way: str
    since_sigterm_s: float | None
    usage_bytes: int | None
    limit_bytes: int | None
    psi_some_share: float | None


@dataclass(frozen=True, slots=True)
class Party:
    """A process, with its cgroup and container where they are known. `cgroup` is the path of `cgroup_id`."""

    pid: int
    comm: str
    cgroup: str | None = None
    container: str | None = None
    cgroup_id: int | None = None

    def to_dict(self) -> PartyObject:
        """Return the process as an object of the JSON."""
        return {"pid": self.pid, "comm": self.comm, "cgroup": self.cgroup, "container": self.container}


@dataclass(frozen=True, slots=True)
class Sigkill:
    """One process that SIGKILL ended, by the sender. `sender` is None if no process sent it, but the kernel.

    `way`: `tracer.enumerations.KILL_WAY`. `since_sigterm_s` is None if the process got no SIGTERM before.
    `usage_bytes` and `limit_bytes` are those of the target's cgroup at that moment. A limit of None: it has
    none of its own. `pressure_share` is the part of the `PRESSURE_WINDOW_S` before, from 0 to 1,
    in which a task of the cgroup waited for memory (PSI some); None: not known. `start_ns` is when the target
    started, by CLOCK_BOOTTIME; None: the trace is older than the column.
    """

    time: pd.Timestamp | None
    target: Party
    sender: Party | None
    parents: tuple[Party, ...]
    way: str
    since_sigterm_s: float | None
    usage_bytes: int | None
    limit_bytes: int | None
    pressure_share: float | None = None
    start_ns: int | None = None

    def to_dict(self) -> SigkillObject:
        """Return the object of `sigkills` in the JSON."""
        parents: list[ParentObject] = [{"pid": one.pid, "comm": one.comm} for one in self.parents]
        return {
            "time": None if self.time is None else self.time.isoformat(),
            "target": self.target.to_dict(),
            "sender": None if self.sender is None else {**self.sender.to_dict(), "parents": parents},
            "way": self.way,
            "since_sigterm_s": self.since_sigterm_s,
            "usage_bytes": self.usage_bytes,
            "limit_bytes": self.limit_bytes,
            "psi_some_share": self.pressure_share,
        }


def from_row(
    row: Mapping[str, Any],
    names: Mapping[int, tuple[str | None, str | None]],
    *,
    time: pd.Timestamp | None = None,
    pressure_share: float | None = None,
) -> Sigkill:
    """Return the SIGKILL of a row of `sigkills`, in which None stands for null.

    `names`: cgroup id -> path and container.
    """

    def party(name: str, cgroup: float | None = None) -> Party | None:
        prefix = name and f"{name}_"
        pid, cgroup_id = row[f"{prefix}tgid"], None if cgroup is None else int(cgroup)
        known = names.get(cgroup_id or 0, (None, None))
        return None if pid is None else Party(int(pid), row[f"{prefix}comm"] or "", *known, cgroup_id)

    target, since_ns, start_ns = party("", row["cgroup_id"]), row["since_sigterm_ns"], row["start_ns"]
    usage, limit = row["usage_bytes"], row["limit_bytes"]
    assert target is not None
    return Sigkill(
        time,
        target,
        party("sender", row["sender_cgroup_id"]),
        tuple(one for name in PARENTS if (one := party(name)) is not None),
        row["way"],
        None if since_ns is None else round(since_ns / 1e9, 3),
        None if usage is None else int(usage),
        None if limit is None or limit >= UNLIMITED_BYTES else int(limit),
        pressure_share,
        None if start_ns is None else int(start_ns),
    )
