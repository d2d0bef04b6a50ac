"""Logs of many kills: memory and work for each line do not grow with the log."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.calls import counted_calls

from tracer.cli.verbs import explain
from tracer.kernel.kmsg import log_files, parser
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text import lines

CORPUS = Path(__file__).parent / "corpus"
REPORT = (CORPUS / "captured-6.12-debian13-v2-dmesg-x.log").read_text("utf-8", "surrogateescape")
PIDS = sorted(set(re.findall(r"Killed process (\d+) \(", REPORT)))


def copies(count: int) -> Iterator[bytes]:
    """Yield the same log many times, each time later, with other processes and other times."""
    yield from map(copy, range(count))


@cache
def copy(number: int) -> bytes:
    def later(found: re.Match[str]) -> str:
        return f"[{int(found[1]) + number * 100:7}.{found[2]}]"

    def other(found: re.Match[str]) -> str:
        return str(100_000 + number * len(PIDS) + PIDS.index(found[0]))

    text = re.sub(rf"\b(?:{'|'.join(PIDS)})\b", other, re.sub(r"\[ *(\d+)\.(\d{6})\]", later, REPORT))
    for at in range(3):
        kill = f"Memory cgroup out of memory: Killed process {3_000_000 + number * 3 + at} (worker) "
        sizes = "total-vm:9000kB, anon-rss:8000kB, file-rss:0kB, shmem-rss:0kB"
        text += f"kern  :err   : [{number * 100 + 99:7}.00000{at}] {kill}{sizes}\n"
    return text.encode("utf-8", "surrogateescape")


def peak_bytes(read: Callable[[], Sized]) -> tuple[int, int]:
    """Return (number of things read, most memory that they took)."""
    tracemalloc.start()
    try:
        read_count = len(read())
        return read_count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_for_a_further_report_is_small() -> None:
    """Reports in full would take 2.5 kB each; 256 of them wait for late lines at any time."""

    def kept(count: int) -> Sequence[LogReport]:
        return log_files.merged(parser.reports(lines.split(copies(count))))

    kept(1)  # what is made once
    list(copies(160))  # made before memory is counted
    (few, few_bytes), (many, many_bytes) = (peak_bytes(lambda n=n: kept(n)) for n in (80, 160))  # type: ignore[misc]
    assert many - few == 80 * 5
    assert many_bytes - few_bytes < 1200 * (many - few)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a log, and one with twice as many kills."""
    paths = [tmp_path_factory.mktemp("logs") / f"log{count}" for count in (20, 40)]
    for path, count in zip(paths, (20, 40), strict=True):
        path.write_bytes(b"".join(copies(count)))
    return paths


@pytest.mark.parametrize("form", [["--list"], ["--last"], [], ["--list", "--json"]], ids=" ".join)
def test_work_for_a_kill_does_not_grow_with_their_number(logs: list[Path], form: list[str]) -> None:
    def work(log: Path) -> Any:
        result = CliRunner().invoke(explain.command, ["--kmsg", str(log), *form])
        assert result.exception is None, result.exception
        return result

    work(logs[0])  # modules are imported
    few, many = (counted_calls(lambda log=log: work(log)) for log in logs)  # type: ignore[misc]
    assert many < 2.1 * few
