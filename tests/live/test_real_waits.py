"""Waits for memory in `top --json` and in the metrics of `serve`, against memory.pressure of the kernel."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.slowdown import SLOWDOWN
from support.waiting import wait_for

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

TOP: Final = Path(__file__).parents[2]
WITHIN_S: Final = 60 * SLOWDOWN
HIGH_BYTES: Final = 24 << 20
ABOVE_BYTES: Final = 13 << 20
WAITED_US: Final = 2_000_000
INTERVAL_S: Final = max(0.5 * SLOWDOWN, 2 * WAITED_US / 1e6)
"""Twice the waits, so that no interval is all waits: it has at most 100 %, and what a late sample saw beyond
that is in no interval."""
ROUNDED: Final = 0.1
"""The share by which sums of `top` may differ."""

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.vm_once,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        memory_hierarchy().version == 1, reason="needs cgroup v2: v1 has no pressure of a cgroup"
    ),
]


def totals_us(memcg: Path) -> dict[str, int]:
    """Return for how long some and all tasks of a cgroup have waited for memory."""
    try:
        text = (memcg / "memory.pressure").read_text("ascii")
    except OSError as error:  # not there, or not supported
        pytest.skip(f"PSI is off: memory.pressure: {error.strerror}")
    return {
        kind: int(total) for kind, total in re.findall(r"^(some|full) .*total=(\d+)$", text, re.MULTILINE)
    }


@contextmanager
def running(folder: Path, ready: str, *arguments: str) -> Iterator[tuple[Path, Path]]:
    """Run a verb until the context is left; yield its stdout and stderr once stderr has the word `ready`."""
    stdout, stderr = (folder / f"{arguments[0]}.{name}" for name in ("out", "err"))
    with stdout.open("wb") as out, stderr.open("wb") as err:
        child = subprocess.Popen(
            [sys.executable, "-m", "tracer", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(TOP)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        wait_for(lambda: ready in stderr.read_text() or child.poll() is not None, told=stderr.read_text)
        assert child.poll() is None, stderr.read_text()
        yield stdout, stderr
        child.send_signal(signal.SIGINT)
        assert child.wait(WITHIN_S) == 0, stderr.read_text()
    finally:
        child.kill()
        child.wait()


def scraped_us(url: str, cgroup: str) -> dict[str, float]:
    """Return kind -> microseconds of `pressure_seconds`."""
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]  # type: ignore[no-untyped-call]
    return {
        sample.labels["kind"]: sample.value * 1e6
        for family in families
        for sample in family.samples
        if sample.name == "memcg_tracer_pressure_seconds_total" and sample.labels["id"] == cgroup
    }


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def waited_us(rows: list[dict[str, Any]]) -> float:
    """Return the waits that rows of one cgroup show: the share of each interval."""
    times = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
    shares: list[float] = [row["psi_some_percent"] / 100 for row in rows[1:]]
    return 1e6 * math.fsum(
        share * (end - begin) for share, begin, end in zip(shares, times[:-1], times[1:], strict=True)
    )


def test_waits_above_memory_high_are_those_that_the_kernel_counted(
    memcg: Path, tmp_path: Path, start_workload: Callable[..., Any]
) -> None:
    cgroup = f"/{memcg.relative_to(memory_hierarchy().mount)}"
    assert totals_us(memcg) == {"some": 0, "full": 0}
    (memcg / "memory.high").write_text(str(HIGH_BYTES), encoding="ascii")
    serve = ("serve", "--listen", "127.0.0.1:0", "-c", str(memcg))
    top = ("top", "--json", "-i", str(INTERVAL_S), "-c", str(memcg))
    with (
        running(tmp_path, "(ready in ", *serve) as (_, said),
        running(tmp_path, "(ready in ", *top) as (shown, _),
    ):
        wait_for(lambda: rows_in(shown), told=shown.read_text)
        (url,) = re.findall(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", said.read_text())
        workload = start_workload(memcg, "anon", str(HIGH_BYTES + ABOVE_BYTES))
        assert workload.advance() == "start"
        workload.release()
        wait_for(lambda: totals_us(memcg)["some"] >= WAITED_US, told=lambda: totals_us(memcg))
        workload.process.kill()
        workload.process.wait()
        counted = totals_us(memcg)
        wait_for(
            lambda: scraped_us(url, cgroup) == pytest.approx(counted, rel=0.02),
            told=lambda: scraped_us(url, cgroup),
        )
        wait_for(lambda: rows_in(shown)[-1]["psi_some_percent"] == 0, told=shown.read_text)
        assert totals_us(memcg) == counted
    rows = rows_in(shown)
    assert {row["cgroup"] for row in rows} == {cgroup}
    assert max(row["psi_some_percent"] for row in rows[1:]) <= 100
    assert waited_us(rows) == pytest.approx(counted["some"], rel=ROUNDED)


def test_cgroup_without_waits_shows_none_and_not_unknown(memcg: Path, tmp_path: Path) -> None:
    assert totals_us(memcg) == {"some": 0, "full": 0}
    top = ("top", "--json", "-i", str(INTERVAL_S), "-n", "3", "-c", str(memcg))
    ended = subprocess.run(
        [sys.executable, "-m", "tracer", *top],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN_S,
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["psi_some_percent"] for row in rows[1:]] == [0, 0]
