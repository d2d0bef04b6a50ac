"""Messages to the service manager, received by a real datagram socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slowdown import SLOWDOWN

from tracer.watch.service import ServiceManager, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServiceManager, socket.socket]]:
    """Return a manager's socket in either namespace, and what sends to it."""
    abstract = f"memcg-tracer-test-{os.getpid()}"
    name = str(tmp_path / "notify") if request.param == "path" else f"@{abstract}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else f"\0{abstract}")
        receiver.settimeout(5 * SLOWDOWN)
        yield ServiceManager({"NOTIFY_SOCKET": name}), receiver


def test_each_message_is_a_datagram(manager: tuple[ServiceManager, socket.socket]) -> None:
    sender, receiver = manager
    sender.ready()
    sender.status("12 cgroups, 3 traces")
    sender.alive()
    sender.stopping()
    received = [receiver.recv(4096) for _ in range(4)]
    assert received == [b"READY=1", b"STATUS=12 cgroups, 3 traces", b"WATCHDOG=1", b"STOPPING=1"]


def test_unchanged_status_is_not_sent_again(manager: tuple[ServiceManager, socket.socket]) -> None:
    sender, receiver = manager
    for text in ("a", "a", "b", "a"):
        sender.status(text)
    assert [receiver.recv(4096) for _ in range(3)] == [b"STATUS=a", b"STATUS=b", b"STATUS=a"]
    sender.ready()
    assert receiver.recv(4096) == b"READY=1"


def test_status_cannot_contain_another_message(manager: tuple[ServiceManager, socket.socket]) -> None:
    sender, receiver = manager
    sender.status("web\nSTOPPING=1\r\n\ud800 \u00e9")
    assert receiver.recv(4096) == b"STATUS=web STOPPING=1 \\ud800 \xc3\xa9"


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234", "/nowhere/notify", "/" + "x" * 300])
def test_socket_that_does_not_answer_is_ignored(name: str) -> None:
    sender = ServiceManager({"NOTIFY_SOCKET": name})
    for say in (sender.ready, sender.alive, sender.stopping):
        say()
    sender.status("text")


def test_no_variable_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    def no_socket(*_: object) -> socket.socket:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", no_socket)
    ServiceManager().ready()


def test_full_socket_does_not_stop_the_loop(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        sender = ServiceManager({"NOTIFY_SOCKET": name})
        began_s = time.monotonic()
        for _ in range(2000):  # the queue has net.unix.max_dgram_qlen places: 10 to 512
            sender.alive()
        assert time.monotonic() - began_s < 10 * SLOWDOWN
        receiver.setblocking(False)
        received = 0
        with pytest.raises(BlockingIOError):
            while receiver.recv(64) == b"WATCHDOG=1":
                received += 1
        assert 0 < received < 2000


@pytest.mark.parametrize(
    ("usec", "pid", "interval_s"),
    [
        ("20000000", "", 10.0),
        pytest.param("20000000", str(os.getpid()), 10.0, id="own"),
        ("500000", "", 0.25),
        ("20000000", "1", None),
        ("20000000", "x", None),
        ("0", "", None),
        ("-5", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_watchdog_interval_is_half_of_the_given_time(usec: str, pid: str, interval_s: float | None) -> None:
    environment = {"WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
    assert watchdog_interval_s(environment) == interval_s


def test_watchdog_without_variables_is_off() -> None:
    assert watchdog_interval_s({}) is None
