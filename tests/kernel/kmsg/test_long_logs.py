"""Logs of many kills: memory and work for each line do not grow with the log."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tracer.cli.verbs import explain
from tracer.kernel.kmsg import log_files, parser
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text import lines

CORPUS = Path(__file__).parent / "corpus"
REPORT = (CORPUS / "captured-6.12-debian13-v2-dmesg-x.log").read_text("utf-8", "surrogateescape")
PIDS = sorted(set(re.findall(r"Killed process (\d+) \(", REPORT)))


def copies(count: int) -> Iterator[bytes]:
    """Yield the same log many times, each time later, with other processes and other times."""
    yield from (copy(number).encode("utf-8", "surrogateescape") for number in range(count))


def copy(number: int) -> str:
    def later(found: re.Match[str]) -> str:
        return f"[{int(found[1]) + number * 100:7}.{found[2]}]"

    text = re.sub(r"\[ *(\d+)\.(\d{6})\]", later, REPORT)
    for at, pid in enumerate(PIDS):
        text = re.sub(rf"\b{pid}\b", str(100_000 + number * len(PIDS) + at), text)
    for at in range(3):
        kill = f"Memory cgroup out of memory: Killed process {3_000_000 + number * 3 + at} (worker) "
        sizes = "total-vm:9000kB, anon-rss:8000kB, file-rss:0kB, shmem-rss:0kB"
        text += f"kern  :err   : [{number * 100 + 99:7}.00000{at}] {kill}{sizes}\n"
    return text


def written(path: Path, count: int) -> Path:
    with path.open("wb") as log:
        log.writelines(copies(count))
    return path


def peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        kept = read()
        del kept
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls(work: Callable[[], object]) -> int:
    count = 0

    def counted(_frame: object, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_memory_for_a_further_report_is_small() -> None:
    """Reports in full would take 2.5 kB each; 256 of them wait for late lines at any time."""

    def kept(count: int) -> Sequence[LogReport]:
        return log_files.merged(parser.reports(lines.split(copies(count))))

    few, many = kept(80), kept(240)
    grown = peak_bytes(lambda: kept(240)) - peak_bytes(lambda: kept(80))
    assert len(many) - len(few) == 160 * 5
    assert grown < 1200 * (len(many) - len(few))


@pytest.mark.parametrize("form", [["--list"], ["--last"], [], ["--list", "--json"]], ids=" ".join)
def test_work_for_a_kill_does_not_grow_with_their_number(tmp_path: Path, form: list[str]) -> None:
    logs = [written(tmp_path / f"log{count}", count) for count in (20, 40)]

    def work(log: Path) -> Any:
        result = CliRunner().invoke(explain.command, ["--kmsg", str(log), *form])
        assert result.exception is None, result.exception
        return result

    for log in logs:
        work(log)
    few, many = (calls(lambda log=log: work(log)) for log in logs)  # type: ignore[misc]
    assert many < 2.1 * few
