from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from synthetic.sample_series import MIB, SECOND_NS, START_NS, batch, series

from tracer.watch.alarms import MOST, WITHIN_NS, Alarms


def leak(begin: float = 0) -> pa.RecordBatch:
    """Return samples of a leak that hits a limit of 100 MiB after 16 s."""
    return series(
        lambda at: {"anon": 20 + 5 * (at - begin), "max_events": 3 if at - begin > 15.9 else 0},
        16,
        begin=begin,
    )


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        ({"soon"}, ["soon"]),
        ({"limit"}, ["limit"]),
        ({"kill", "limit", "soon"}, ["soon", "limit"]),
        ({"kill"}, []),
    ],
)
def test_alarms_are_only_of_the_kinds_that_were_asked_for(kinds: set[str], reasons: list[str]) -> None:
    found = Alarms(frozenset(kinds)).take(leak(), START_NS)
    assert [alarm.reason for alarm in found] == reasons


def test_batch_without_rows_gives_no_alarm() -> None:
    assert Alarms(frozenset({"soon", "limit"})).take(leak().slice(0, 0), START_NS) == []


def test_cgroup_without_a_limit_gives_no_alarm_until_it_has_one() -> None:
    alarms = Alarms(frozenset({"soon", "limit"}))
    unlimited = series(lambda at: {"anon": 20 + 5 * at, "max_events": 1 if at < 8 else 3}, 16, np.inf)
    assert alarms.take(unlimited, START_NS) == []
    assert len(alarms.take(leak(17), START_NS)) == 2


def test_alarms_of_many_cgroups_are_bounded_and_the_others_counted() -> None:
    count = 3 * MOST
    alarms = Alarms(frozenset({"limit"}))

    def take(turn: int, now_ns: int) -> int:
        samples = batch(
            count,
            time=START_NS + turn * 3600 * SECOND_NS,
            cgroup_id=np.arange(count),
            usage_bytes=100 * MIB,
            limit_bytes=100 * MIB,
            max_events=turn,
        )
        return len(alarms.take(samples, now_ns))

    assert take(0, 0) == 0
    assert take(1, SECOND_NS) == MOST
    assert take(2, WITHIN_NS) == 0
    assert alarms.suppressed == {"limit": 2 * count - MOST}
    assert take(3, WITHIN_NS + SECOND_NS) == MOST


def test_forgotten_cgroup_begins_anew() -> None:
    alarms = Alarms(frozenset({"soon", "limit"}))
    assert len(alarms.take(leak(), 0)) == 2
    assert alarms.take(leak(17), 0) == []
    alarms.forget(iter([7]))
    assert len(alarms.take(leak(34), 0)) == 2


def test_alarms_import_neither_pandas_nor_compute_functions() -> None:
    program = (
        "import sys\n"
        "from tracer.trace.arrow_columns import rows_of\n"
        "from tracer.watch.alarms import Alarms\n"
        "from tracer.schema import TABLES\n"
        "row = dict.fromkeys(TABLES['samples'].names) | {'source': 'oom', 'time': 1, 'cgroup_id': 7}\n"
        "samples = rows_of('samples', [row, row | {'usage_bytes': 9, 'limit_bytes': 9, 'file_bytes': 0}])\n"
        "Alarms(frozenset({'soon', 'limit'})).take(samples, 1)\n"
        "print({'pandas', 'pyarrow.compute'} & {*sys.modules})\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"
