"""The anonymous memory of processes, also of one that blocks its readers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.waiting import wait_for

from tracer.capture.contents import processes
from tracer.capture.contents.held import HeldProcess
from tracer.capture.contents.processes import read_processes
from tracer.kernel.anatomy.process_anatomy import read_process
from tracer.kernel.process.children import collect_ended

MIB = 1 << 20


def kinds(held: HeldProcess | None) -> set[str]:
    return set() if held is None else {mapping.mapping for mapping in held.mappings}


def test_processes_are_read_in_their_order_and_an_ended_one_is_none(holder: Callable[[int], int]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    tgids = [holder(5), ended.pid, holder(11)]
    small, none, large = read_processes(tgids)
    assert small is not None and none is None and large is not None
    assert [small.pid, large.pid] == [tgids[0], tgids[2]]
    assert 5 * MIB <= small.bytes < 11 * MIB <= large.bytes < 20 * MIB
    assert small.bytes == sum(mapping.bytes for mapping in small.mappings)
    assert "unread" not in kinds(small) | kinds(large)


def test_process_that_blocks_its_reader_is_unread(holder: Callable[[int], int], monkeypatch: Any) -> None:
    monkeypatch.setattr(processes, "read_process", lambda *_, **__: time.sleep(3600))
    monkeypatch.setattr(processes, "_ANSWERS_WITHIN_S", 0.01)
    children = Path("/proc/thread-self/children")
    tgid = holder(7)
    before = set(children.read_text().split())
    (held,) = read_processes([tgid])
    assert held is not None and kinds(held) == {"unread"}
    assert 7 * MIB <= held.bytes < 16 * MIB, "its memory is known without its mappings"

    def has_ended() -> bool:
        collect_ended()  # a busy machine delays the end of a reader that was killed
        return set(children.read_text().split()) <= before

    wait_for(has_ended)


def test_processes_after_one_that_ends_its_reader_are_read(
    holder: Callable[[int], int], monkeypatch: Any
) -> None:
    deadly, other = holder(3), holder(5)

    def read(tgid: int, **how: Any) -> Any:
        return os._exit(3) if tgid == deadly else read_process(tgid, **how)

    monkeypatch.setattr(processes, "read_process", read)
    first, second = read_processes([deadly, other])
    assert kinds(first) == {"unread"}
    assert second is not None and second.pid == other and "unread" not in kinds(second)


def test_reading_is_given_up_after_three_failures(tmp_path: Path, monkeypatch: Any) -> None:
    tries = tmp_path / "tries"

    def read(*_: Any, **__: Any) -> None:
        with tries.open("a") as stream:
            stream.write("x")
        os._exit(3)

    monkeypatch.setattr(processes, "read_process", read)
    found = list(read_processes([os.getpid()] * 5))
    assert [kinds(held) for held in found] == [{"unread"}] * 5
    assert tries.read_text() == "xxx"
