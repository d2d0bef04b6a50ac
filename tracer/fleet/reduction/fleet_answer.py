"""The answer from a fleet's summaries: kills by cause and workload, a limit for each workload, evictors.

A quantile is a value that occurred: the smallest peak that at least this share of the runs did not exceed
(numpy's `inverted_cdf`). An unknown value is None and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from tracer.analysis.results.forms import as_json
from tracer.analysis.results.kill import UNKNOWN
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.sizing.other_recommenders import krr_limit_bytes, vpa_target_bytes
from tracer.fleet.sizing.replays import Replayed, replayed
from tracer.fleet.sizing.suggestion import Suggestion, suggest
from tracer.fleet.summary.overlaps import CLOCKS_APART_AT_MOST_NS
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow

_NULLABLE: Final = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
_EVICTED: Final = ["evicted_bytes", "refaulted_bytes"]
_NO_KILLS: Final = pd.DataFrame({"time": pd.Series(dtype="datetime64[ns, UTC]"), "limit_bytes": []})
"""KRR's rule does not use kills by default."""
_MOST_INTERVALS: Final = 60
_DAY_S: Final = 86400
_WIDTHS_S: Final = (1, 10, 60, 300, 900, 3600, 10800, 21600, _DAY_S, 7 * _DAY_S, 28 * _DAY_S)


@dataclass(frozen=True, slots=True)
class Host:
    """A host name. `boots` is the number of its boots. Boots that overlap in time belong to different
    machines; there are at least `machines` of them. `lost_records` does not cover the `uncounted_traces`,
    whose recording was interrupted; it is None if it covers no trace."""

    host: str
    traces: int
    kills: int
    lost_records: int | None
    uncounted_traces: int
    boots: int
    machines: int


@dataclass(frozen=True, slots=True)
class KillCount:
    """The kills of one workload on one host for one cause."""

    cause: str
    workload: str
    host: str
    count: int
    first: pd.Timestamp
    last: pd.Timestamp


@dataclass(frozen=True, slots=True)
class GrownFunction:
    """The kills before which one function made the memory grow most; `line` is that of the newest kill.

    Functions of one name in one file (Python, Node) or module are one function.
    """

    function: str
    file: str | None
    line: int | None
    module: str | None
    count: int
    hosts: int
    workloads: int
    first: pd.Timestamp
    last: pd.Timestamp


@dataclass(frozen=True, slots=True)
class SigkillCount:
    """The processes of one workload on one host that SIGKILL of one sender ended, and the OOM killer did not.
    A `sender` of None is the kernel."""

    sender: str | None
    workload: str
    host: str
    count: int
    first: pd.Timestamp
    last: pd.Timestamp


@dataclass(frozen=True, slots=True)
class KillsOverTime:
    """Kills in intervals of `width` from `begin` (UTC): cause -> the count of each interval."""

    begin: pd.Timestamp
    width: pd.Timedelta
    counts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Peaks:
    """Quantiles of the runs' peaks, in bytes; None if no peak is known."""

    p50: int | None
    p90: int | None
    max: int | None


@dataclass(frozen=True, slots=True)
class Workload:
    """The runs of a workload in the window, and the kills in it. `limit_bytes` is the limit of the newest run
    whose limit is known; `is_limited` is False if that run had no limit, and None if it is not known for any
    run. `suggestion` considers whole runs, not only their part in the window.

    `vpa_limit_bytes` and `krr_limit_bytes` are the limits that the rules of the Kubernetes VPA and of KRR
    give for the working sets by the minute, at the end of the latest trace of the fleet; None if no recent
    working set is known.
    """

    workload: str
    hosts: int
    runs: int
    kills: int
    limit_bytes: int | None
    is_limited: bool | None
    peak_unreclaimable_bytes: Peaks
    suggestion: Suggestion
    vpa_limit_bytes: int | None
    krr_limit_bytes: int | None
    replays: tuple[Replayed, ...] = ()
    """The runs, replayed at the present limit, at the suggested, the trial or the least one, and at those
    that were asked for, by limit."""

    def replay_at(self, limit_bytes: int | None) -> Replayed | None:
        """Return the runs replayed at one of these limits; None: the limit is none of them."""
        return next((one for one in self.replays if one.limit_bytes == limit_bytes), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        found: dict[str, Any] = {
            name: as_json(getattr(self, name))
            for name in ("workload", "hosts", "runs", "kills", "limit_bytes", "is_limited")
        }
        found["peak_unreclaimable_bytes"] = as_json(self.peak_unreclaimable_bytes)
        found |= as_json(self.suggestion)
        found["no_suggestion_because"] = found.pop("reason")
        found |= {"vpa_limit_bytes": self.vpa_limit_bytes, "krr_limit_bytes": self.krr_limit_bytes}
        return found | {"replays": [as_json(one) for one in self.replays]}


@dataclass(frozen=True, slots=True)
class Evictor:
    """Page cache of the owner that the evictor's tasks evicted, or that kswapd did."""

    owner_workload: str
    evictor_workload: str
    cause: str
    hosts: int
    evicted_bytes: int | None
    refaulted_bytes: int | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The answer. `begin` and `end` cover all traces; None without a trace. Lists are ordered by weight.

    `sigkills` is None if no trace has this table. Older traces do not: `traces_without_sigkills` of them.
    """

    traces: int
    begin: pd.Timestamp | None
    end: pd.Timestamp | None
    broken: Sequence[Broken]
    hosts: Sequence[Host]
    kills: Sequence[KillCount]
    workloads: Sequence[Workload]
    evictors: Sequence[Evictor]
    code: Sequence[GrownFunction] = ()
    """Of the kills whose trace has samples of code."""
    sigkills: Sequence[SigkillCount] | None = None
    traces_without_sigkills: int = 0
    perhaps_repeated_kills: int = 0
    """The number of kills that may repeat another kill in the count. Older traces lack the start of the
    victim, by which a kill that several recorders saw is recognised."""
    since: pd.Timestamp | None = None
    until: pd.Timestamp | None = None
    """The window of the answer is from `since` to `until`; None: no bound."""
    kills_over_time: KillsOverTime | None = None
    """None: there is no kill. Only the page has it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": 1,
            "since": as_json(self.since),
            "until": as_json(self.until),
            "traces": self.traces,
            "begin": as_json(self.begin),
            "end": as_json(self.end),
            "broken": [
                {"path": one.path, "why": one.why, "is_partial": one.is_partial} for one in self.broken
            ],
            "hosts": [as_json(one) for one in self.hosts],
            "kills": [as_json(one) for one in self.kills],
            "code": [as_json(one) for one in self.code],
            "sigkills": None if self.sigkills is None else [as_json(one) for one in self.sigkills],
            "traces_without_sigkills": self.traces_without_sigkills,
            "perhaps_repeated_kills": self.perhaps_repeated_kills,
            "workloads": [one.to_dict() for one in self.workloads],
            "evictors": [as_json(one) for one in self.evictors],
        }


def answer(state: Partial, window: TimeWindow = ALWAYS, limits: Sequence[int] = ()) -> Fleet:
    """Return the answer from the state of all traces, which has each kill and life once
    (`partial_state.once`) and is closed (`partial_state.closed`).

    Kills in the window count, and runs that overlap the window. For limits, each of these runs counts whole.
    `limits`, in bytes, are those at which the runs of each workload are replayed as well.
    """
    sources, evictors, kills_of_runs = (frame(rows) for rows in (state.sources, state.evictors, state.kills))
    unknown = int(sources["sigkills"].isna().sum())
    kills, lives = frame(window.moments(state.kills)), frame(window.overlapping(state.lives))
    return Fleet(
        traces=len(sources),
        begin=sources["time"].min() if len(sources) else None,
        end=state.end,
        broken=sorted(set(state.broken), key=lambda one: (one.path, one.why)),
        hosts=sorted(_hosts(sources, kills), key=lambda one: (-one.kills, -one.traces, one.host)),
        kills=sorted(_kill_counts(kills), key=lambda one: (-one.count, one.cause, one.workload, one.host)),
        workloads=sorted(
            _workloads(lives, kills, kills_of_runs, _Rules.of_state(state, window), limits), key=_weight
        ),
        evictors=sorted(
            _evictors(evictors),
            key=lambda one: (-(one.evicted_bytes or 0), one.owner_workload, one.evictor_workload, one.cause),
        ),
        code=sorted(_grown(kills), key=lambda one: (-one.count, -one.hosts, one.function, str(one))),
        sigkills=None if unknown == len(sources) else _sigkill_counts(frame(state.sigkills)),
        traces_without_sigkills=unknown,
        perhaps_repeated_kills=_perhaps_repeated(kills),
        kills_over_time=kills_over_time(kills),
        since=_timestamp(window.since_ns),
        until=_timestamp(window.until_ns),
    )


def frame(table: pa.Table) -> pd.DataFrame:
    """Return a table of summaries as a DataFrame; integers and flags keep NA."""
    rows: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get, strings_to_categorical=False)
    return rows


def _weight(one: Workload) -> tuple[Any, ...]:
    """Return the sort key of a workload: kills, then how full the limit was, then runs."""
    largest = one.peak_unreclaimable_bytes.max
    full = 0.0 if largest is None or not one.limit_bytes else largest / one.limit_bytes
    return -one.kills, -full, -one.runs, one.workload


def _hosts(sources: pd.DataFrame, kills: pd.DataFrame) -> Iterator[Host]:
    of_host = kills["host"].value_counts()
    for host, traces in sources.groupby("host", sort=False):
        yield Host(
            host=str(host),
            traces=len(traces),
            kills=int(of_host.get(host, 0)),
            lost_records=_total(traces["lost_records"]),
            uncounted_traces=int(traces["lost_records"].isna().sum()),
            boots=int(traces["boot_id"].nunique()),
            machines=_machines(traces),
        )


def _machines(traces: pd.DataFrame) -> int:
    """Return the greatest number of boots that were up at one time: a machine has one at a time."""
    ends = traces["end"].fillna(traces["time"])
    times = traces.assign(last=ends).groupby("boot_id").agg(begin=("time", "min"), last=("last", "max"))
    begins, lasts = (np.sort(times[name].to_numpy()) for name in ("begin", "last"))
    up = np.arange(1, len(begins) + 1) - np.searchsorted(lasts, begins, side="left")
    return max(int(up.max(initial=1)), 1)


def _kill_counts(kills: pd.DataFrame) -> Iterator[KillCount]:
    grouped = kills.assign(cause=kills["cause"].fillna(UNKNOWN)).groupby(["cause", "workload", "host"])
    for (cause, workload, host), times in grouped["time"]:
        yield KillCount(str(cause), str(workload), str(host), len(times), times.min(), times.max())


def _perhaps_repeated(kills: pd.DataFrame) -> int:
    """Return the number of kills that may repeat the one before, of the same pid and boot: one of the two has
    no start of the victim, by which they could be compared.

    Kills that only the kernel log has are left out: none is that close to another one (`summary.overlaps`).
    """
    recorded = kills[kills["ktime_ns"].notna()].sort_values(["boot_id", "victim_pid", "ktime_ns"])
    before = recorded.shift()
    is_near = recorded["ktime_ns"] - before["ktime_ns"] <= CLOCKS_APART_AT_MOST_NS
    is_of_one = (recorded["boot_id"] == before["boot_id"]) & (recorded["victim_pid"] == before["victim_pid"])
    is_unknown = recorded["victim_start_ns"].isna() | before["victim_start_ns"].isna()
    return int((is_near & is_of_one & is_unknown).fillna(value=False).sum())


def _grown(kills: pd.DataFrame) -> Iterator[GrownFunction]:
    names = ["grown_function", "grown_file", "grown_module"]
    sampled = kills[kills["grown_function"].notna()].sort_values("time", kind="stable")
    for (function, file, module), rows in sampled.groupby(names, dropna=False, sort=False):
        line = rows["grown_line"].iloc[-1]
        yield GrownFunction(
            function=str(function),
            file=_text(file),
            line=None if pd.isna(line) else int(line),
            module=_text(module),
            count=len(rows),
            hosts=int(rows["host"].nunique()),
            workloads=int(rows["workload"].nunique()),
            first=rows["time"].iloc[0],
            last=rows["time"].iloc[-1],
        )


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _sigkill_counts(senders: pd.DataFrame) -> list[SigkillCount]:
    groups = senders.groupby(["sender_comm", "workload", "host"], dropna=False)
    found = [
        SigkillCount(
            sender if isinstance(sender, str) else None, str(workload), str(host),
            int(rows["count"].sum()), rows["first"].min(), rows["last"].max(),
        )
        for (sender, workload, host), rows in groups
    ]  # fmt: skip
    return sorted(found, key=lambda one: (-one.count, one.sender or "", one.workload, one.host))


def kills_over_time(kills: pd.DataFrame) -> KillsOverTime | None:
    """Return the kills (`time` in UTC, `cause`) in at most `_MOST_INTERVALS` intervals of a round length,
    which begin at multiples of it since 1970."""
    if kills.empty:
        return None
    times_ns = pd.DatetimeIndex(kills["time"]).as_unit("ns").asi8
    first, last = int(times_ns.min()), int(times_ns.max())
    widths = (int(second * 1e9) for second in _WIDTHS_S)
    width = next((one for one in widths if last // one - first // one < _MOST_INTERVALS), None)
    if width is None:  # years
        width = -(-(last - first + 1) // _MOST_INTERVALS)
    place, bins = times_ns // width - first // width, last // width - first // width + 1
    codes, causes = pd.factorize(kills["cause"].fillna(UNKNOWN), sort=True)
    counts = {
        str(cause): tuple(np.bincount(place[codes == code], minlength=bins).tolist())
        for code, cause in enumerate(causes)
    }
    return KillsOverTime(pd.Timestamp(first // width * width, tz="UTC"), pd.Timedelta(width, "ns"), counts)


@dataclass(frozen=True)
class _Rules:
    """The limits that the VPA and KRR would give each workload, in bytes."""

    vpa: Mapping[str, int | None]
    krr: Mapping[str, int | None]

    @classmethod
    def of_state(cls, state: Partial, window: TimeWindow) -> _Rules:
        now = state.now(window)
        if now is None:
            return cls({}, {})
        intervals, peaks = frame(state.intervals), frame(state.last_peaks)
        return cls(
            {str(name): vpa_target_bytes(rows, now) for name, rows in intervals.groupby("workload")},
            {str(name): krr_limit_bytes(rows, _NO_KILLS, now) for name, rows in peaks.groupby("workload")},
        )


def _workloads(
    lives: pd.DataFrame,
    kills: pd.DataFrame,
    kills_of_lives: pd.DataFrame,
    rules: _Rules,
    asked_bytes: Sequence[int],
) -> Iterator[Workload]:
    """Yield each workload with a life or a kill in the window; `kills_of_lives` may have further kills."""
    lives_of, kills_of, all_kills_of = map(_OfWorkloads.of, (lives, kills, kills_of_lives))
    for name in sorted(lives_of.names | kills_of.names):
        its_lives, its_kills = lives_of.rows(name), kills_of.rows(name)
        limit_bytes, is_limited = _newest_limit(its_lives)
        found = suggest(its_lives, all_kills_of.rows(name))
        limits = {limit_bytes, found.suggested_limit_bytes, found.least_limit_bytes, found.trial_limit_bytes}
        limits.update(asked_bytes)
        yield Workload(
            workload=name,
            hosts=len({*its_lives["host"], *its_kills["host"]}),
            runs=len(its_lives),
            kills=len(its_kills),
            limit_bytes=limit_bytes,
            is_limited=is_limited,
            peak_unreclaimable_bytes=_peaks(its_lives["peak_unreclaimable_bytes"]),
            suggestion=found,
            vpa_limit_bytes=rules.vpa.get(name),
            krr_limit_bytes=rules.krr.get(name),
            replays=tuple(replayed(its_lives, one) for one in sorted(filter(None, limits))),
        )


@dataclass(frozen=True)
class _OfWorkloads:
    """Rows in order of time, and the positions of the rows of each workload."""

    sorted_rows: pd.DataFrame
    positions: Mapping[str, Any]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        rows = rows.sort_values("time", kind="stable")
        names = rows["workload"]
        return cls(rows, {str(name): at for name, at in names.groupby(names, sort=False).indices.items()})

    @property
    def names(self) -> Set[str]:
        return self.positions.keys()

    def rows(self, name: str) -> pd.DataFrame:
        none = np.array([], dtype=np.intp)
        found: pd.DataFrame = self.sorted_rows.iloc[self.positions.get(name, none)]
        return found


def _timestamp(time_ns: int | None) -> pd.Timestamp | None:
    return None if time_ns is None else pd.Timestamp(time_ns, tz="UTC")


def _newest_limit(lives: pd.DataFrame) -> tuple[int | None, bool | None]:
    """Return the highest limit of the lives that began last, and whether each of them had one."""
    known = lives[lives["is_limited"].notna()]
    if not len(known):
        return None, None
    newest = known[known["time"] == known["time"].iloc[-1]]  # several may begin at once, on several hosts
    if not newest["is_limited"].all():
        return None, False
    limit_bytes = newest["limit_bytes"].max()
    return None if pd.isna(limit_bytes) else int(limit_bytes), True


def _peaks(values: pd.Series[Any]) -> Peaks:
    known = values.dropna().to_numpy(dtype=np.int64)
    if not len(known):
        return Peaks(None, None, None)
    half, most, largest = np.quantile(known, [0.5, 0.9, 1], method="inverted_cdf")
    return Peaks(int(half), int(most), int(largest))


def _evictors(evictors: pd.DataFrame) -> Iterator[Evictor]:
    names = ["owner_workload", "evictor_workload", "cause"]
    for (owner, evictor, cause), rows in evictors.groupby(names, sort=False, dropna=False):
        yield Evictor(
            str(owner), str(evictor), str(cause), int(rows["host"].nunique()),
            *(_total(rows[name]) for name in _EVICTED),
        )  # fmt: skip


def _total(values: pd.Series[Any]) -> int | None:
    """Return the sum of the known values; None if no value is known."""
    known = values.dropna()
    return int(known.sum()) if len(known) else None
