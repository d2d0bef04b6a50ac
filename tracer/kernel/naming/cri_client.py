"""The child that asks the socket of a runtime: `python -m tracer.kernel.naming.cri_client SOCKET`.

It is a separate process because gRPC takes 25 MiB, for which the recorder has no room. It reads a JSON object
with the wanted ids, `containers`, and uids, `pods` (null: all), and writes an object with the names that it
found: container id -> [container, pod, namespace, image], and pod uid -> [null, pod, namespace, null].

The messages of the CRI and of containerd from which names are read, with only the fields that names need.

The field numbers come from `runtime.v1` (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`), and from
`containers.v1` and `namespaces.v1` (containerd, `api/services`). Protobuf skips all other fields.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from tracer.kernel.process.children import end_with_parent, stand_back
from tracer.protobuf_messages import Messages, message_classes

CRI: Final = "runtime.v1.RuntimeService"
CONTAINERS: Final = "containerd.services.containers.v1.Containers"
NAMESPACES: Final = "containerd.services.namespaces.v1.Namespaces"
_PACKAGE: Final = "memcg_tracer.cri"  # on the wire, a message has no name

_FIELDS: Final[Messages] = {
    "ListContainersRequest": {},
    "ListContainersResponse": {"containers": (1, "*Container")},
    "Container": {
        "id": (1, "string"),
        "pod_sandbox_id": (2, "string"),
        "metadata": (3, "ContainerMetadata"),
        "image": (4, "ImageSpec"),
        "image_ref": (5, "string"),
    },
    "ContainerMetadata": {"name": (1, "string")},
    "ImageSpec": {"image": (1, "string"), "user_specified_image": (18, "string")},
    "ListPodSandboxRequest": {},
    "ListPodSandboxResponse": {"items": (1, "*PodSandbox")},
    "PodSandbox": {"id": (1, "string"), "metadata": (2, "PodSandboxMetadata")},
    "PodSandboxMetadata": {"name": (1, "string"), "uid": (2, "string"), "namespace": (3, "string")},
    "ListNamespacesRequest": {},
    "ListNamespacesResponse": {"namespaces": (1, "*Namespace")},
    "Namespace": {"name": (1, "string")},
    "GetContainerRequest": {"id": (1, "string")},
    "GetContainerResponse": {"container": (1, "OfContainerd")},
    "OfContainerd": {"labels": (2, "*Label"), "image": (3, "string")},
    "Label": {"key": (1, "string"), "value": (2, "string")},
}
"""A map is a repeated message on the wire."""

_TIMEOUT_S: Final = 2.0
_ALL_WITHIN_S: Final = 4.0
"""The longest time for one call, and for all calls to a socket: what was found until then is the answer."""

_MOST_ANSWER_BYTES: Final = 16 << 20  # the kubelet's limit (kubernetes, `cri-client/pkg`: maxMsgSize)

_MOST_OTHERS: Final = 64
_MOST_NAMESPACES: Final = 16

_Found = dict[str, dict[str, list[str | None]]]


def main(arguments: list[str]) -> int:
    """Answer the question on stdin; return the exit status, 1 if the socket does not answer."""
    end_with_parent()
    stand_back()
    import grpc  # noqa: PLC0415  after `stand_back`

    wanted = json.load(sys.stdin)
    try:
        found = ask(arguments[0], wanted["containers"], wanted["pods"])
    except grpc.RpcError:
        return 1
    json.dump(found, sys.stdout)
    return 0


def ask(socket: str, containers: Collection[str] | None, pods: Collection[str] | None) -> _Found:
    """Return the names of containers and pods, including dead ones; None asks for all.

    Containers that the CRI does not list are looked up in containerd itself, in all of its namespaces. Raises
    grpc.RpcError if the socket does not answer.
    """
    import grpc  # noqa: PLC0415

    options = [
        ("grpc.max_receive_message_length", _MOST_ANSWER_BYTES),
        ("grpc.default_authority", "localhost"),  # servers in Go refuse a path
    ]
    with grpc.insecure_channel(f"unix:{socket}", options) as channel:
        runtime = _Runtime(channel)
        found: _Found = {"containers": {}, "pods": {}}
        try:
            found = _of_kubernetes(runtime, containers, pods)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # a containerd without the CRI
                raise
        others = sorted(set(containers or ()) - set(found["containers"]))[:_MOST_OTHERS]
        with suppress(grpc.RpcError):  # CRI-O
            found["containers"].update(_of_containerd(runtime, others) if others else ())
    return found


class _Runtime:
    """The calls that a socket answers."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._until_s = time.monotonic() + _ALL_WITHIN_S
        # Imported after `stand_back`, which lowers the priority of this process.
        self._classes = message_classes(_PACKAGE, _FIELDS)

    def call(self, service: str, method: str, message: str, namespace: str = "", **fields: str) -> Any:
        """Call a method with the fields of `message`Request; raises grpc.RpcError."""
        request, response = self._classes[f"{message}Request"], self._classes[f"{message}Response"]
        serve = self._channel.unary_unary(
            f"/{service}/{method}", request.SerializeToString, response.FromString
        )
        metadata = (("containerd-namespace", namespace),) if namespace else None
        left_s = max(self._until_s - time.monotonic(), 0.0)
        return serve(request(**fields), timeout=min(_TIMEOUT_S, left_s), metadata=metadata)


def _of_kubernetes(
    runtime: _Runtime, containers: Collection[str] | None, pods: Collection[str] | None
) -> _Found:
    items = runtime.call(CRI, "ListPodSandbox", "ListPodSandbox").items
    sandboxes = {box.id: box.metadata for box in items}
    found: _Found = {"containers": {}, "pods": {}}
    for identity, pod in sandboxes.items():
        if containers is None or identity in containers:
            found["containers"][identity] = [None, pod.name or None, pod.namespace or None, None]
        if pods is None or pod.uid in pods:
            found["pods"][pod.uid] = [None, pod.name or None, pod.namespace or None, None]
    for container in runtime.call(CRI, "ListContainers", "ListContainers").containers:
        if containers is None or container.id in containers:
            pod = sandboxes.get(container.pod_sandbox_id)
            image = container.image.user_specified_image or container.image.image or container.image_ref
            found["containers"][container.id] = [
                container.metadata.name or None,
                (pod.name or None) if pod is not None else None,
                (pod.namespace or None) if pod is not None else None,
                image or None,
            ]
    return found


def _of_containerd(runtime: _Runtime, containers: Collection[str]) -> Iterator[tuple[str, list[str | None]]]:
    """Yield a container id and its names, from containerd; nerdctl labels its containers (`pkg/labels`)."""
    import grpc  # noqa: PLC0415

    found: set[str] = set()
    listed = runtime.call(NAMESPACES, "List", "ListNamespaces").namespaces[:_MOST_NAMESPACES]
    for namespace in (one.name for one in listed):
        for identity in (one for one in containers if one not in found):
            try:
                answer = runtime.call(CONTAINERS, "Get", "GetContainer", namespace, id=identity)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                continue
            labels = {label.key: label.value for label in answer.container.labels}
            found.add(identity)
            yield identity, [labels.get("nerdctl/name"), None, None, answer.container.image or None]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
