"""The service that compiles for guests, with the guest's side on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from vm.compile_service import CompileService

GUEST = Path(__file__).with_name("compiler.sh")
COMPILER = """
import sys
from pathlib import Path
request, answer = map(Path, sys.argv[1:])
if b"wrong" in request.read_bytes():
    sys.exit("no such structure")
answer.with_suffix(".part").write_bytes(b"compiled " + request.read_bytes())
answer.with_suffix(".part").rename(answer)
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[CompileService]:
    (tmp_path / "compile.py").write_text(COMPILER)
    made = CompileService(tmp_path / "compile", tmp_path / "compile.py")
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def guest(results: Path, request: bytes) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "VM_RESULTS": str(results)}
    pipe = subprocess.PIPE
    with subprocess.Popen([GUEST], stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        assert process.stdin is not None
        with closing(process.stdin) as stream:
            stream.write(request)
        process.stdin = None
        try:
            yield process
        finally:
            process.kill()  # it waits for an answer, however the test ended


def serve_until_ended(service: CompileService, *guests: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 60
    while any(one.poll() is None for one in guests):
        assert time.monotonic() < deadline_s
        service.serve()
        time.sleep(0.05)


def test_requests_of_a_guest_are_answered(service: CompileService, tmp_path: Path) -> None:
    with guest(tmp_path, b"one") as first, guest(tmp_path, b"two") as second:
        serve_until_ended(service, first, second)
        assert [one.communicate() for one in (first, second)] == [
            (b"compiled one", b""),
            (b"compiled two", b""),
        ]
        assert (first.returncode, second.returncode) == (0, 0)


def test_failed_compilation_is_reported_to_the_guest(service: CompileService, tmp_path: Path) -> None:
    with guest(tmp_path, b"wrong") as asking:
        serve_until_ended(service, asking)
        assert asking.communicate() == (b"", b"no such structure\n")
        assert asking.returncode == 1
