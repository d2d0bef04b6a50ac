"""Kills and cgroups as DataFrames, and what a trace and a report show of themselves in Python."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from tracer.analysis.results.kill import Held, OomReport, as_json, limit_columns
from tracer.units import UNKNOWN, limit

_KILL_DTYPES: Final = {
    "kill_id": "int64",
    "container": "str",
    "cgroup": "str",
    "cgroup_id": "Int64",
    "run": "Int64",
    "victim": "str",
    "pid": "int64",
    "cause": "str",
    "confidence": "str",
    "constraint": "str",
    "limit_bytes": "Int64",
    "is_limited": "boolean",
    "usage_bytes": "Int64",
    "anon_rss_bytes": "Int64",
    "file_rss_bytes": "Int64",
    "shmem_rss_bytes": "Int64",
    "oom_score_adj": "Int64",
    "evicted_bytes": "Int64",
    "lost_records": "Int64",
    "summary": "str",
}

_HELD_DTYPES: Final = {
    "cgroup": "str",
    "cgroup_id": "Int64",
    "container": "str",
    "run": "Int64",
    "limit_bytes": "Int64",
    "is_limited": "boolean",
    "peak_usage_bytes": "Int64",
    "peak_time": "datetime64[ns, UTC]",
    "headroom_bytes": "Int64",
    "peak_anon_bytes": "Int64",
    "cache_at_peak_bytes": "Int64",
    "shmem_at_peak_bytes": "Int64",
    "kernel_at_peak_bytes": "Int64",
    "peak_swap_bytes": "Int64",
    "evicted_bytes": "Int64",
    "refaulted_bytes": "Int64",
    "max_events": "Int64",
    "stuck_since": "datetime64[ns, UTC]",
}


def kills(reports: Sequence[OomReport]) -> pd.DataFrame:
    """Return a row for each victim of the OOM killer, indexed by `time` (UTC).

    `cgroup`, `container`, `run`, `limit_bytes` and `usage_bytes` are of the cgroup whose limit was hit,
    `victim` and the `_rss_bytes` of the task that died. `summary` is the verdict in one sentence. NA is not
    known; of `limit_bytes` also that there is none, and `is_limited` is then false.
    """
    rows = [
        {
            "time": report.time,
            "kill_id": report.kill_id,
            "container": report.limit_owner.container,
            "cgroup": report.limit_owner.cgroup,
            "cgroup_id": report.limit_owner.cgroup_id,
            "run": report.limit_owner.run,
            "victim": victim.comm,
            "pid": victim.pid,
            "cause": report.verdict.cause,
            "confidence": report.verdict.confidence,
            "constraint": report.constraint,
            **limit_columns(report.limit_owner.limit_bytes),
            "usage_bytes": report.limit_owner.usage_bytes,
            "anon_rss_bytes": victim.anon_rss_bytes,
            "file_rss_bytes": victim.file_rss_bytes,
            "shmem_rss_bytes": victim.shmem_rss_bytes,
            "oom_score_adj": victim.oom_score_adj,
            "evicted_bytes": report.cushion.evicted_bytes,
            "lost_records": report.quality.lost_records,
            "summary": report.verdict.summary,
        }
        for report in reports
        for victim in report.victims
    ]
    times = pd.DatetimeIndex(_column([row["time"] for row in rows], "datetime64[ns, UTC]"), name="time")
    return _frame(rows, _KILL_DTYPES).set_index(times)


def held(cgroups: Sequence[Held]) -> pd.DataFrame:
    """Return a row for each cgroup, in the order given: how near its limit came, and what reclaim gave back.

    The columns are the fields of `analysis.results.kill.Held`. NA is not known; of `limit_bytes` also that
    there is no limit, and `is_limited` is then false.
    """
    rows = [
        {name: getattr(one, name) for name in _HELD_DTYPES if name not in ("limit_bytes", "is_limited")}
        | limit_columns(one.limit_bytes)
        for one in cgroups
    ]
    return _frame(rows, _HELD_DTYPES)


def _frame(rows: Sequence[dict[str, Any]], dtypes: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: _column([row[name] for row in rows], kind) for name, kind in dtypes.items()})


def _column(values: list[Any], dtype: str) -> pd.Series:
    if dtype.startswith("datetime64"):
        return pd.Series(pd.DatetimeIndex([pd.Timestamp(value) for value in values], tz="UTC").as_unit("ns"))
    return pd.Series(values, dtype="object" if dtype == "str" else dtype)


Facts = Sequence[tuple[str, str]]


def of_report(report: OomReport) -> tuple[str, Facts]:
    """What a report shows of itself: a title, and labels with values."""
    owner = report.limit_owner
    place = owner.container or owner.cgroup or UNKNOWN
    life = f" (run {owner.run} of {owner.runs})" if (owner.runs or 1) > 1 else ""
    victims = [f"{victim.comm} (pid {victim.pid})" for victim in report.victims]
    more = f" and {len(victims) - 3} more" if len(victims) > 3 else ""
    return shown(
        f"OOM kill {report.kill_id} at {as_json(report.time) or UNKNOWN}",
        [
            ("limit of", f"{place}{life}: {limit(owner.limit_bytes)}, {report.constraint}"),
            ("killed", (", ".join(victims[:3]) or UNKNOWN) + more),
            ("cause", f"{report.verdict.cause}, confidence {report.verdict.confidence}"),
            ("summary", report.verdict.summary),
        ],
    )


def as_text(title: str, facts: Facts) -> str:
    """Lines of a label and a value, below a title."""
    width = max((len(label) for label, _ in facts), default=0)
    return "\n".join([title, *(f"  {label:<{width}}  {value}" for label, value in facts)])


def as_html(title: str, facts: Facts) -> str:
    """The same as a table of HTML, escaped."""
    style = 'style="text-align:left"'
    rows = "".join(
        f"<tr><th {style}>{html.escape(label)}</th><td {style}>{html.escape(value)}</td></tr>"
        for label, value in facts
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def shown(title: str, facts: Facts) -> tuple[str, Facts]:
    """Both without what could act in a terminal: names come from the kernel."""
    return _printable(title), [(label, _printable(value)) for label, value in facts]


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
