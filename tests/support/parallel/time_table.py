"""The end of a parallel run says where its time went: in which lane, and in which files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

import pytest

from .lanes import ALONE, BESIDE, KERNEL, OTHERS, lane_of

_FILES: Final = 12


@dataclass(eq=False)
class _Lane:
    """What was seen of a lane: its tests, the sum of their times, and when the first began and the last ended
    (seconds since the epoch)."""

    tests: int = 0
    spent_s: float = 0.0
    begin_s: float = float("inf")
    end_s: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        self.tests += report.when == "call"
        self.spent_s += report.duration
        self.begin_s = min(self.begin_s, report.start)
        self.end_s = max(self.end_s, report.stop)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("tx", None):  # this process collects the reports of workers
        config.pluginmanager.register(TimeTable())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give the lane of a test to its reports, which go to the process that collects them."""
    report = yield
    vars(report)["lane"] = lane_of(item)
    return report


@dataclass(eq=False)
class TimeTable:
    """A plugin of the process that collects the reports of all workers."""

    begin_s: float = field(default_factory=time.time)
    lanes: dict[str, _Lane] = field(
        default_factory=lambda: {name: _Lane() for name in (KERNEL, BESIDE, OTHERS, ALONE)}
    )
    files: Counter[str] = field(default_factory=Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (lane := vars(report).get("lane")) is None:
            return  # of a worker that died
        self.lanes[lane].add(report)
        self.files[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seen = {name: lane for name, lane in self.lanes.items() if lane.end_s}
        if not seen:
            return
        terminalreporter.section("where the time went")
        first_s = min(lane.begin_s for lane in seen.values()) - self.begin_s
        lines = ["lane        tests   their time   from … to"]
        lines.append(f"{'collection':<31}0 … {first_s:.0f} s")
        for name, lane in seen.items():
            span = f"{lane.begin_s - self.begin_s:.0f} … {lane.end_s - self.begin_s:.0f} s"
            lines.append(f"{name or 'the others':<10} {lane.tests:>6,} {lane.spent_s:>10.0f} s   {span}")
        lines += ["", *(f"{spent_s:>10.1f} s   {file}" for file, spent_s in self.files.most_common(_FILES))]
        for line in lines:
            terminalreporter.write_line(line)
