"""Classes of protobuf messages from a table of their fields: no compiler, no generated code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Messages = Mapping[str, Mapping[str, tuple[int, str]]]
"""Message -> field -> (number, type); `*`: repeated. A type is a message of the table or a scalar of
protobuf (`string`, `int64`, `bool`)."""


def message_classes(package: str, messages: Messages) -> dict[str, Any]:
    """Return message -> its class, as protoc would make it from a proto3 file of this package."""
    # The recorder has no room for protobuf: only its children, and readers of a trace, make messages.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            plain = kind.lstrip("*")
            if plain in messages:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{package}.{plain}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message}"))
        for message in messages
    }
