"""A pusher that is killed at any moment: the trace is whole or not there, and the next pusher goes on."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.storing.spooled_trace import contents, write_spooled

from tracer.directory import Directory
from tracer.fleet.pushing import upload
from tracer.fleet.pushing.finished import FinishedTrace, examine
from tracer.fleet.pushing.target import Target


def in_child(act: Callable[[], object]) -> int:
    """Run a function in a forked child; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def push_and_die(url: str, trace: FinishedTrace, at: int) -> None:
    """Copy a trace, and die by SIGKILL at the operation of this number; of a write, half is done."""
    from fsspec.implementations import local

    count = 0

    def counted(kind: Any, name: str) -> None:
        original = getattr(kind, name)

        def operation(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                if name == "write":
                    original(self, args[0][: len(args[0]) // 2])
                    self.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **options)

        setattr(kind, name, operation)

    class Written(io.BufferedWriter):
        def writelines(self, lines: Iterable[Any], /) -> None:
            for line in lines:
                self.write(line)

    create = Directory.create
    Directory.create = lambda self, name: Written(create(self, name).detach())  # type: ignore
    counted(local.LocalFileSystem, "find")
    for name in ("create", "subfolder", "replace", "read", "unlink"):
        counted(Directory, name)
    counted(Written, "write")
    upload.copy(Target(url), trace)


def test_copy_that_is_killed_at_any_operation_is_not_there_and_goes_on(tmp_path: Path) -> None:
    trace = examine(write_spooled(tmp_path / "web"), ("web",))
    assert isinstance(trace, FinishedTrace)
    expected = contents(trace.path)
    at = resumed = 0
    while True:
        at += 1
        root = tmp_path / f"at{at}"
        status = in_child(lambda root=root, at=at: push_and_die(f"file://{root}", trace, at))  # type: ignore[misc]
        place = root / "web"
        if (place / "meta.json").exists():
            found = contents(place)
            assert expected.items() <= found.items()
        copied = upload.copy(Target(f"file://{root}"), trace)
        assert contents(place) == expected
        resumed += 0 < copied.sent_files < 5
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert at > 30
    assert resumed > 10
