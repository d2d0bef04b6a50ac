"""Names from a CRI socket: a real gRPC server, whose messages are put together by hand from api.proto."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.containers.protobuf_wire import entry, field

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming import cri_socket
from tracer.kernel.naming.cri_socket import from_cri
from tracer.kernel.naming.host_files import HostFiles

grpc: Any = pytest.importorskip("grpc", reason="needs the packages of the extra cri")

ID, ID2, ID3 = "4f2c9d1be0a73586" * 4, "0123456789abcdef" * 4, "f" * 64
BOX = "b0" * 32
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
CALLS = ("ListPodSandbox", "ListContainers")


def sandbox() -> bytes:
    """PodSandbox: id, metadata (name, uid, namespace, attempt), state, created_at, labels, annotations."""
    metadata = field(1, "web-7d9f") + field(2, UID) + field(3, "prod") + field(4, 1)
    labels = field(5, entry("app", "web")) + field(6, entry("note", "x" * 500))
    return field(1, BOX) + field(2, metadata) + field(3, 1) + field(4, 1 << 60) + labels + field(7, "runc")


def container(identity: str, name: str, image: bytes, box: str = BOX) -> bytes:
    """Container: id, pod_sandbox_id, metadata (name, attempt), image, image_ref, state, created_at, labels,
    annotations, image_id."""
    first = field(1, identity) + field(2, box) + field(3, field(1, name) + field(2, 3)) + field(4, image)
    rest = field(5, "sha256:0f1e") + field(6, 2) + field(7, 1 << 60) + field(8, entry("a", "b"))
    return first + rest + field(10, "sha256:0f1e")


ANSWERS = {
    "ListPodSandbox": field(1, sandbox()),
    "ListContainers": field(
        1, container(ID, "app", field(1, "sha256:0f1e") + field(18, "docker.io/library/redis:7"))
    )
    + field(1, container(ID2, "side", field(1, "quay.io/org/side:1")))
    + field(1, container(ID3, "orphan", b"", box="gone")),
}


BY_NERDCTL, OF_DOCKER = "c0" * 32, "d0" * 32
OF_CONTAINERD = {
    "Namespaces/List": field(1, field(1, "default") + field(2, entry("a", "b")))
    + field(1, field(1, "k8s.io")),
    f"Containers/Get default {BY_NERDCTL}": field(
        1,
        field(1, BY_NERDCTL)
        + field(2, entry("nerdctl/namespace", "default"))
        + field(2, entry("nerdctl/name", "web"))
        + field(3, "docker.io/library/nginx:1")
        + field(6, "overlayfs"),
    ),
    f"Containers/Get k8s.io {OF_DOCKER}": field(1, field(1, OF_DOCKER)),
}
"""Answers of containerd's own services, by what was asked."""


class Containerd(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """The services of containerd itself; what is not there is not found."""

    def service(self, details: Any) -> Any:
        service, method = details.method.strip("/").split("/")
        if not service.startswith("containerd.services."):
            return None
        namespace = dict(details.invocation_metadata).get("containerd-namespace", "")

        def answer(request: bytes, context: Any) -> bytes:
            asked = f"{service.split('.')[-1]}/{method} {namespace} {request[2:].decode()}".strip()
            if asked not in OF_CONTAINERD:
                context.abort(grpc.StatusCode.NOT_FOUND, "no")
            return OF_CONTAINERD[asked]

        return grpc.unary_unary_rpc_method_handler(answer)


class Runtime(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """A runtime that gives these bytes, or an error where there are none."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, bytes]] = []

    def service(self, details: Any) -> Any:
        service, method = details.method.strip("/").split("/")
        if service != "runtime.v1.RuntimeService":
            return None

        def answer(request: bytes, context: Any) -> bytes:
            self.requests.append((method, request))
            if method not in self.answers:
                context.abort(grpc.StatusCode.UNAVAILABLE, "no")
            return self.answers[method]

        return grpc.unary_unary_rpc_method_handler(answer)


Serve = Callable[[Path, dict[str, bytes]], Any]


@contextmanager
def served(place: Path, answers: dict[str, bytes], *more: Any) -> Iterator[Runtime]:
    place.parent.mkdir(parents=True, exist_ok=True)
    runtime = Runtime(answers)
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(runtime, *more))
    assert server.add_insecure_port(f"unix:{place}")
    server.start()
    try:
        yield runtime
    finally:
        server.stop(None).wait()


@pytest.fixture
def host(files: HostFiles) -> Iterator[HostFiles]:
    """A host with a short path: that of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cri-") as short:
        yield HostFiles(Path(short))


@pytest.mark.parametrize("path", ["/run/containerd/containerd.sock", "/run/crio/crio.sock"])
def test_containers_and_pods_have_the_names_that_the_runtime_lists(host: HostFiles, path: str) -> None:
    with served(host.place(path), ANSWERS) as runtime:
        containers, pods = from_cri(host, {ID, ID2, ID3, BOX, "a" * 64}, {UID, "other"})
    assert containers == {
        ID: ContainerNames("app", "web-7d9f", "prod", "docker.io/library/redis:7"),
        ID2: ContainerNames("side", "web-7d9f", "prod", "quay.io/org/side:1"),
        ID3: ContainerNames("orphan", None, None, "sha256:0f1e"),
        BOX: ContainerNames(None, "web-7d9f", "prod"),
    }
    assert pods == {UID: ContainerNames(None, "web-7d9f", "prod")}
    assert runtime.requests == [(call, b"") for call in CALLS]


def test_containers_that_kubernetes_does_not_have_are_those_of_containerd(host: HostFiles) -> None:
    wanted = {ID, BY_NERDCTL, OF_DOCKER, "a" * 64}
    with served(host.place("/run/containerd/containerd.sock"), ANSWERS, Containerd()):
        containers, _ = from_cri(host, wanted, ())
    assert containers == {
        ID: ContainerNames("app", "web-7d9f", "prod", "docker.io/library/redis:7"),
        BY_NERDCTL: ContainerNames("web", image="docker.io/library/nginx:1"),
        OF_DOCKER: ContainerNames(),
    }


def test_names_that_were_found_in_time_are_kept(host: HostFiles) -> None:
    late = "e" * 64

    class Slow(Containerd):
        def service(self, details: Any) -> Any:
            handler = super().service(details)

            def answer(request: bytes, context: Any) -> Any:
                if late in request.decode():
                    context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no time is left")
                return handler.unary_unary(request, context)

            return handler and grpc.unary_unary_rpc_method_handler(answer)

    with served(host.place("/run/containerd/containerd.sock"), ANSWERS, Slow()):
        containers, _ = from_cri(host, {BY_NERDCTL, late}, ())
    assert containers == {BY_NERDCTL: ContainerNames("web", image="docker.io/library/nginx:1")}


def test_containerd_without_the_cri_is_asked(host: HostFiles) -> None:
    """Docker's package of containerd has the CRI switched off."""
    place = host.place("/run/containerd/containerd.sock")
    place.parent.mkdir(parents=True)
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Containerd(),))
    server.add_insecure_port(f"unix:{place}")
    server.start()
    try:
        assert from_cri(host, {BY_NERDCTL}, {UID}) == (
            {BY_NERDCTL: ContainerNames("web", image="docker.io/library/nginx:1")},
            {},
        )
    finally:
        server.stop(None).wait()


def test_only_what_is_wanted_is_returned(host: HostFiles) -> None:
    with served(host.place("/run/crio/crio.sock"), ANSWERS):
        assert from_cri(host, {ID2}, ()) == (
            {ID2: ContainerNames("side", "web-7d9f", "prod", "quay.io/org/side:1")},
            {},
        )
        containers, pods = from_cri(host, None, None)
        assert (set(containers), set(pods)) == ({ID, ID2, ID3, BOX}, {UID})


def test_socket_of_the_variable_is_asked(host: HostFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    place = host.root / "mine.sock"
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", f"unix://{place}")
    with served(place, ANSWERS):
        assert set(from_cri(host, {ID}, ())[0]) == {ID}


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"ListPodSandbox": ANSWERS["ListPodSandbox"]},
        {"ListPodSandbox": b"\xff\xff", "ListContainers": b"\xff"},
        {"ListPodSandbox": b"", "ListContainers": b""},
        {"ListPodSandbox": b"", "ListContainers": field(1, field(1, ID) + field(3, field(1, "n" * 5000)))},
    ],
    ids=["refuses", "refuses-containers", "nonsense", "empty", "overlong-name"],
)
def test_broken_runtime_names_nothing(host: HostFiles, answers: dict[str, bytes]) -> None:
    with served(host.place("/run/crio/crio.sock"), answers):
        containers, pods = from_cri(host, {ID}, {UID})
    assert containers in ({}, {ID: ContainerNames()})
    assert pods == {}


def test_answer_beyond_all_bounds_is_refused(host: HostFiles) -> None:
    huge = {**ANSWERS, "ListContainers": field(1, field(8, b"\0" * (17 << 20)))}
    with served(host.place("/run/crio/crio.sock"), huge):
        assert from_cri(host, {ID}, ()) == ({}, {})


def test_hanging_runtime_is_left_after_some_seconds(host: HostFiles) -> None:
    place = host.place("/run/crio/crio.sock")
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place))
        listener.listen()
        begin = time.monotonic()
        assert from_cri(host, {ID}, ()) == ({}, {})
        assert time.monotonic() - begin < cri_socket._WITHIN_S + 60


def test_files_that_are_no_sockets_are_not_asked(host: HostFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("asked"))
    place = host.place("/run/crio/crio.sock")
    place.parent.mkdir(parents=True)
    place.write_text("")
    assert from_cri(host, {ID}, ()) == ({}, {})
    shutil.rmtree(place.parent)
    assert from_cri(host, {ID}, ()) == ({}, {})


@pytest.mark.parametrize("has_grpc", [False, True])
def test_without_the_extra_nothing_is_asked(
    host: HostFiles, monkeypatch: pytest.MonkeyPatch, has_grpc: bool
) -> None:
    def find_spec(name: str) -> object:
        if name == "google.protobuf":
            raise ModuleNotFoundError(name)
        return object() if has_grpc else None

    monkeypatch.setattr(cri_socket, "find_spec", find_spec)
    with served(host.place("/run/crio/crio.sock"), ANSWERS) as runtime:
        assert from_cri(host, {ID}, ()) == ({}, {})
    assert runtime.requests == []
