"""The messages of the CRI and of containerd from which names are read, with only the fields that names need.

The field numbers come from `runtime.v1` (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`), and from
`containers.v1` and `namespaces.v1` (containerd, `api/services`). Protobuf skips all other fields.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CRI: Final = "runtime.v1.RuntimeService"
CONTAINERS: Final = "containerd.services.containers.v1.Containers"
NAMESPACES: Final = "containerd.services.namespaces.v1.Namespaces"
_PACKAGE: Final = "memcg_tracer.cri"  # on the wire, a message has no name

_FIELDS: Final[dict[str, dict[str, tuple[int, str]]]] = {
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
"""Message -> field -> (number, type); `*`: repeated. A map is a repeated message on the wire."""


def message_classes() -> dict[str, Any]:
    """Return message -> its class, as protoc would make it."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cri_names.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            if kind == "string":
                field.type = kinds.TYPE_STRING
            else:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind.lstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message}"))
        for message in _FIELDS
    }
