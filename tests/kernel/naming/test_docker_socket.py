"""Names from Docker's socket, which may hang or answer nonsense."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.docker_socket import from_docker_socket
from tracer.kernel.naming.host_files import HostFiles

ID, ID2 = "4f2c9d1be0a73586" * 4, "0123456789abcdef" * 4


def listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


@contextmanager
def served(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """Answer requests, which are in the list afterwards, in turn."""
    requests: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(65536))
                connection.sendall(answer)

    with listen(path) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield requests
        server.join()


def answer_with(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_containers_of_the_variables_socket_have_name_labels_and_image(
    files: HostFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web"}
    container = {"Id": ID, "Names": ["/other/alias", "/x"], "Labels": labels, "Image": "redis:7"}
    answer = answer_with([{"Id": ID2, "Names": ["/y"]}, container])
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/other.sock")
    with served(tmp_path / "other.sock", answer) as requests:
        assert from_docker_socket(files, {ID}) == {ID: ContainerNames("app", "web", None, "redis:7")}
    assert b"filters=" in requests[0]


def test_all_containers_are_listed_by_the_hosts_socket(files: HostFiles) -> None:
    (files.root / "var").mkdir()
    (files.root / "var" / "run").symlink_to("/run")
    answer = answer_with([{"Id": ID, "Names": ["/exited"]}, {"Id": ID2, "Names": ["/web"]}])
    with served(files.root / "run" / "docker.sock", answer) as requests:
        assert from_docker_socket(files, None) == {ID: ContainerNames("exited"), ID2: ContainerNames("web")}
    assert b"filters=" not in requests[0]


NO_CONTAINER = b"HTTP/1.1 200 OK\r\n\r\n[]"


def test_removed_container_is_named_by_its_events(files: HostFiles) -> None:
    (files.root / "var").mkdir()
    (files.root / "var" / "run").symlink_to("/run")
    attributes = {"image": "redis:7", "name": "gone", "io.kubernetes.container.name": "app"}
    events = [
        {"Type": "container", "Action": "create", "Actor": {"ID": ID, "Attributes": attributes}},
        {"Type": "container", "Action": "die", "Actor": {"ID": ID2, "Attributes": {"name": "another"}}},
        {"Type": "container", "Action": "die", "Actor": {"ID": ID, "Attributes": None}},
        3,
    ]
    body = b"".join(json.dumps(event).encode() + b"\n" for event in events) + b"{"
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + body
    with served(files.root / "run" / "docker.sock", NO_CONTAINER, answer) as requests:
        assert from_docker_socket(files, {ID}) == {ID: ContainerNames("app", image="redis:7")}
    assert requests[1].startswith(b"GET /events?since=0&until=")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 404 No\r\n\r\n",
        b"\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n3",
    ],
)
def test_broken_docker_names_nothing(files: HostFiles, answer: bytes) -> None:
    with served(files.root / "var" / "run" / "docker.sock", answer):
        assert from_docker_socket(files, {ID}) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n[3, {}]",
        b'HTTP/1.1 200 OK\r\n\r\n[{"Id": "%s", "Names": [null, 3, {"/": 1}]}]' % ID.encode(),
    ],
)
def test_list_of_nonsense_names_nothing(files: HostFiles, answer: bytes) -> None:
    with served(files.root / "var" / "run" / "docker.sock", answer, b"HTTP/1.1 400 No\r\n\r\n"):
        assert from_docker_socket(files, {ID}) == {}


def test_hanging_docker_is_not_waited_for(files: HostFiles) -> None:
    with listen(files.root / "var" / "run" / "docker.sock"):  # accepts connections, and never answers
        begin = time.monotonic()
        assert from_docker_socket(files, {ID}) == {}
        assert time.monotonic() - begin < 60


def test_absent_socket_names_nothing(files: HostFiles) -> None:
    assert from_docker_socket(files, {ID}) == {}
