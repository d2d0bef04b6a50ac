"""The answer of a small fleet, made without a trace."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.fleet.reduction.fleet_answer import Evictor, Fleet, Host, KillCount, Peaks, SigkillCount, Workload
from tracer.fleet.reduction.partial_state import Broken
from tracer.fleet.sizing.suggestion import Suggestion

MIB = 1 << 20
BEGIN = pd.Timestamp("2026-11-20 06:00", tz="UTC")
DAY = pd.Timedelta("1D")


def suggestion(
    limit_bytes: int | None, exceeded_bytes: int | None, runs: int, risk: float | None
) -> Suggestion:
    return Suggestion(
        suggested_limit_bytes=limit_bytes,
        reason=None if limit_bytes else "too few",
        trial_limit_bytes=exceeded_bytes and 2 * exceeded_bytes,
        expected_kills_per_run=None if limit_bytes is None else 0.001,
        highest_kills_per_run=risk,
        slack_bytes=None if limit_bytes is None else limit_bytes // 3,
        median_need_bytes=None,
        largest_need_bytes=None,
        runs_beyond=None if limit_bytes is None else 0,
        from_runs=runs,
        least_limit_bytes=exceeded_bytes,
        killed_runs=0,
        held_back_runs=0,
        held_back_by=(),
        unknown_runs=0,
    )


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(
        traces=1203,
        begin=BEGIN,
        end=BEGIN + 7 * DAY,
        broken=[Broken("/srv/traces/node-3/x", "meta.json is not JSON: expected a value")],
        hosts=[
            Host("node-1", 600, 20, 1204, 1, 3, 1),
            Host("node-2", 602, 3, 0, 0, 1, 1),
            Host("localhost", 1, 0, None, 1, 2, 2),
        ],
        kills=[
            KillCount("anon_growth", "shop/web/app", "node-1", 17, BEGIN, BEGIN + 6 * DAY),
            KillCount("shmem", "postgres", "node-1", 3, BEGIN, BEGIN + DAY),
            KillCount("anon_growth", "shop/web/app", "node-2", 3, BEGIN, BEGIN + 5 * DAY),
        ],
        workloads=[
            Workload(
                "shop/web/app", 2, 1500, 20, 256 * MIB, True,
                Peaks(190 * MIB, 231 * MIB, 256 * MIB), suggestion(310 * MIB, None, 1500, 0.00321),
                402 * MIB, 212 * MIB,
            ),
            Workload(
                "postgres", 1, 3, 3, 1024 * MIB, True,
                Peaks(1000 * MIB, 1020 * MIB, 1024 * MIB), suggestion(None, 1024 * MIB, 3, None),
                1413 * MIB, 1178 * MIB,
            ),
            Workload(
                "batch", 2, 40, 0, 2048 * MIB, True,
                Peaks(97 * MIB, 97 * MIB, 97 * MIB), suggestion(120 * MIB, None, 40, 0.072),
                161 * MIB, 141 * MIB,
            ),
            Workload(
                "cron.service", 2, 9, 0, None, False,
                Peaks(MIB, MIB, MIB), suggestion(None, None, 9, None),
                None, None,
            ),
            Workload(
                "new", 1, 1, 0, 64 * MIB, True,
                Peaks(None, None, None), suggestion(None, None, 0, None),
                None, None,
            ),
        ],
        evictors=[
            Evictor("postgres", "backup@.service", "reclaim_kswapd", 2, 7700 * MIB, 2100 * MIB),
            Evictor("batch", "batch", "reclaim_memcg", 2, 900 * MIB, 0),
            Evictor("shop/web/app", "?", "reclaim_kswapd", 1, 40 * MIB, None),
        ],
        sigkills=[
            SigkillCount("runc", "shop/web/app", "node-1", 9, BEGIN, BEGIN + 6 * DAY),
            SigkillCount("systemd-oomd", "batch", "node-2", 4, BEGIN, BEGIN + DAY),
            SigkillCount("runc", "shop/web/app", "node-2", 2, BEGIN, BEGIN + DAY),
            SigkillCount(None, "batch", "node-1", 1, BEGIN, BEGIN),
        ],
        traces_without_sigkills=3,
    )  # fmt: skip


@pytest.fixture
def quiet() -> Fleet:
    """Return the answer of one trace in which nothing happened."""
    host = Host("node-1", 1, 0, 0, 0, 1, 1)
    return Fleet(1, BEGIN, BEGIN + DAY, [], [host], [], [], [])
