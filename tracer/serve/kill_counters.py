"""OOM kills, counted under labels that outlive their cgroups: at once, and by cause when the cause is known.

The cause is that of the first verdict, which comes within seconds; if there is none, that of the explained
trace. It is `unknown` only if the explanation says so, or if nothing is left that could explain the kill, as
after a full disk. On a busy machine, a kill waits for its cause. Counters never fall, so each kill is counted
by cause once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from tracer.analysis.results.kill import UNKNOWN
from tracer.live.tally import Names
from tracer.metric_families import KILL_LABELS, kill_labels

_NOBODY: Final = ("",) * len(KILL_LABELS)
_MOST_WAITING: Final = 32_768  # 4 MiB

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """The number of kills of one cause. `trace` is the trace of the newest kill; None: it was not kept.
    `time_s` is the time at which this kill was counted, since the epoch."""

    kills: int
    trace: Path | None
    time_s: float


class KillCounters:
    """Counters of kills. `names_of` returns the names of a cgroup by its id.

    At most `most` sets of labels are distinguished: further kills have empty labels. SIGKILLs that were not
    the OOM killer's have sets of their own, with the name of the sender.

    Only one thread may count; other threads may call `seen`, `explained`, `sigkills` and `events_of_pods`.
    """

    def __init__(self, names_of: Callable[[int], Names | None], most: int) -> None:
        self._names_of = names_of
        self._most = most
        self._seen: Counter[Labels] = Counter()
        self._sigkills: Counter[tuple[Labels, str]] = Counter()
        self._pod_events: Counter[str] = Counter()
        self._explained: dict[tuple[Labels, str], Explained] = {}
        self._waiting: dict[int, Labels] = {}
        self._last_id = 0

    def kill(self, row: Mapping[str, Any]) -> None:
        """Count a kill, given as a row of `oom`. A group kill has a row for each task, and counts once."""
        kill_id = row["kill_id"]
        if kill_id in self._waiting or kill_id <= self._last_id:
            return
        self._last_id = kill_id
        labels = self._labels_of(row["limit_owner_cgroup_id"] or row["cgroup_id"])
        self._seen[labels] += 1
        self._waiting[kill_id] = labels
        if len(self._waiting) > _MOST_WAITING:
            self._explain(next(iter(self._waiting)), UNKNOWN, None)

    def sigkill(self, rows: pa.RecordBatch) -> None:
        """Count SIGKILLs that were not the OOM killer's, given as rows of `sigkills`."""
        cgroup_ids, senders = (rows.column(name).to_pylist() for name in ("cgroup_id", "sender_comm"))
        for (cgroup_id, sender), count in Counter(zip(cgroup_ids, senders, strict=True)).items():
            key = self._labels_in(cgroup_id), sender or ""
            is_new = key not in self._sigkills and len(self._sigkills) >= self._most
            self._sigkills[(_NOBODY, "") if is_new else key] += count

    def pod_event(self, result: str, count: int) -> None:
        """Count events of pods that were sent or dropped."""
        self._pod_events[result] += count

    def explain(self, causes: Iterable[tuple[int, str]], trace: Path | None) -> None:
        """Count the kills of an explained trace by (kill_id, cause). Kills that an earlier trace has counted
        are left out. `trace` is None if the trace is not kept."""
        for kill_id, cause in causes:
            if kill_id in self._waiting:
                self._explain(kill_id, cause, trace)

    def give_up(self) -> None:
        """Count the kills that still wait as `unknown`: nothing is left that could explain them."""
        for kill_id in [*self._waiting]:
            self._explain(kill_id, UNKNOWN, None)

    def seen(self) -> dict[Labels, int]:
        """Return the values of `KILL_LABELS` -> kills, from any thread."""
        return dict(self._seen)

    def explained(self) -> dict[tuple[Labels, str], Explained]:
        """Return (values of `KILL_LABELS`, cause) -> kills, from any thread."""
        return dict(self._explained)

    def sigkills(self) -> dict[tuple[Labels, str], int]:
        """Return (values of `KILL_LABELS`, name of the sender) -> processes, from any thread."""
        return dict(self._sigkills)

    def events_of_pods(self) -> dict[str, int]:
        """Return result -> events, from any thread."""
        return dict(self._pod_events)

    def _labels_of(self, cgroup_id: int) -> Labels:
        labels = self._labels_in(cgroup_id)
        return labels if labels in self._seen or len(self._seen) < self._most else _NOBODY

    def _labels_in(self, cgroup_id: int) -> Labels:
        names = self._names_of(cgroup_id)
        if names is None:
            return _NOBODY
        return kill_labels(
            path=names.path,
            container=names.container,
            pod=names.pod,
            namespace=names.namespace,
            unit=names.unit,
        )

    def _explain(self, kill_id: int, cause: str, trace: Path | None) -> None:
        key = self._waiting.pop(kill_id), cause
        before = self._explained.get(key)
        kills = 1 if before is None else before.kills + 1
        self._explained[key] = Explained(kills, trace, time.time())
