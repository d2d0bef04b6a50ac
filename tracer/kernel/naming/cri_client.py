"""The child that asks a runtime's CRI socket: `python -m tracer.kernel.naming.cri_client SOCKET`.

It is a process of its own because gRPC takes 25 MiB, which the recorder has no room for. It reads a JSON
object with the wanted ids, `containers`, and uids, `pods` (null: all), and writes one with what it found:
container id -> [container, pod, namespace, image], and pod uid -> [null, pod, namespace, null].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from typing import Any, Final

from tracer.kernel.process.forked_child import end_with_parent
from tracer.kernel.process.module_children import stand_back

_TIMEOUT_S: Final = 2.0
_MOST_ANSWER_BYTES: Final = 16 << 20  # as the kubelet accepts (kubernetes, `cri-client/pkg`: maxMsgSize)

_Found = dict[str, dict[str, list[str | None]]]


def main(arguments: list[str]) -> int:
    """Answer the question on stdin; return the exit status, 1 if the socket does not answer."""
    end_with_parent()
    stand_back()
    import grpc  # noqa: PLC0415  after it has stood back

    wanted = json.load(sys.stdin)
    try:
        found = ask(arguments[0], wanted["containers"], wanted["pods"])
    except grpc.RpcError:
        return 1
    json.dump(found, sys.stdout)
    return 0


def ask(socket: str, containers: Collection[str] | None, pods: Collection[str] | None) -> _Found:
    """Return the names of containers and pods, those that died included; None: of all. Raises
    grpc.RpcError."""
    import grpc  # noqa: PLC0415

    from tracer.kernel.naming.cri_messages import SERVICE, message_classes  # noqa: PLC0415

    classes = message_classes()
    options = [
        ("grpc.max_receive_message_length", _MOST_ANSWER_BYTES),
        ("grpc.default_authority", "localhost"),  # a path is refused by servers in Go
    ]
    with grpc.insecure_channel(f"unix:{socket}", options) as channel:

        def call(method: str) -> Any:
            request, response = classes[f"{method}Request"], classes[f"{method}Response"]
            serve = channel.unary_unary(
                f"/{SERVICE}/{method}", request.SerializeToString, response.FromString
            )
            return serve(request(), timeout=_TIMEOUT_S)

        sandboxes = {box.id: box.metadata for box in call("ListPodSandbox").items}
        listed = call("ListContainers").containers
    found: _Found = {"containers": {}, "pods": {}}
    for identity, pod in sandboxes.items():
        if containers is None or identity in containers:
            found["containers"][identity] = [None, pod.name or None, pod.namespace or None, None]
        if pods is None or pod.uid in pods:
            found["pods"][pod.uid] = [None, pod.name or None, pod.namespace or None, None]
    for container in listed:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
