"""JSON Schemas of types: dataclasses, TypedDicts, and what they consist of."""

from __future__ import annotations

import collections.abc
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pandas as pd

from tracer.analysis.results import forms
from tracer.schema import LIMITS

Schema = dict[str, Any]

NULL: Final[Schema] = {"type": "null"}
_SCALARS: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    pd.Timestamp: {"type": "string", "format": "date-time"},
    Any: {},
}


class Definitions:
    """The schemas of dataclasses and TypedDicts by name; one refers to others by their names.

    `modules` have the types that hints name and that are imported for the type checker alone. With
    `has_flags`, each limit is followed by its flag, as `analysis.results.forms.as_object` writes it.
    `XObject` defines X.
    """

    def __init__(self, *modules: ModuleType, has_flags: bool = True) -> None:
        self.found: dict[str, Schema] = {}
        self._types: dict[str, type] = {}
        self._has_flags = has_flags
        self._names: dict[str, Any] = {"pd": pd}
        for module in modules:
            self._names |= vars(module)

    def of(self, hint: Any) -> Schema:
        """Return the schema of a type."""
        if hint in _SCALARS:
            return _SCALARS[hint]
        if isinstance(hint, type) and (is_dataclass(hint) or typing.is_typeddict(hint)):
            return self._reference(hint)
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return {"enum": [one.value for one in hint]}
        return self._of_parts(hint, typing.get_origin(hint), typing.get_args(hint))

    def _of_parts(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        if origin in (typing.Union, types.UnionType):
            known = [self.of(one) for one in arguments if one is not types.NoneType]
            return any_of(*known, *([NULL] if len(known) < len(arguments) else []))
        if origin is typing.Literal:
            return {"enum": list(arguments)}
        if origin in (tuple, collections.abc.Sequence, list):
            return self._array(arguments)
        if origin in (collections.abc.Mapping, dict):
            members = self.of(arguments[1])
            return {"type": "object", "additionalProperties": members} if members else {"type": "object"}
        raise TypeError(f"no schema for {hint}")

    def members(self, record: type, without: tuple[str, ...] = ()) -> dict[str, Schema]:
        """Return the members of the object of a dataclass or TypedDict, without some."""
        module = vars(sys.modules[record.__module__])
        hints = typing.get_type_hints(record, {**self._names, **module})
        names = forms.names(record) if is_dataclass(record) else hints
        found: dict[str, Schema] = {}
        for name in [name for name in names if name not in without]:
            found[name] = self.of(hints[name])
            if self._has_flags and name in LIMITS and is_dataclass(record):
                found.setdefault(LIMITS[name], any_of(_SCALARS[bool], NULL))
        return found

    def _array(self, arguments: tuple[Any, ...]) -> Schema:
        if len(arguments) == 1 or arguments[1] is Ellipsis:
            return array(self.of(arguments[0]))
        items = [self.of(one) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _reference(self, record: type) -> Schema:
        if self._types.setdefault(record.__name__, record) is not record:
            raise TypeError(f"two types are called {record.__name__}")
        name = record.__name__.removesuffix("Object")
        if name not in self.found:
            self.found[name] = {}  # it may refer to itself
            self.found[name] = closed(self.members(record))
        return reference(name)


def reference(name: str) -> Schema:
    """Return a reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def closed(members: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object with these members, in their order, and no others."""
    required = [name for name in members if name not in optional]
    return {
        "type": "object",
        "properties": dict(members),
        "required": required,
        "additionalProperties": False,
    }


def array(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of a value that one of these fits."""
    if len(schemas) == 1:
        return schemas[0]
    if all(one.keys() == {"type"} for one in schemas):
        return {"type": [one["type"] for one in schemas]}
    return {"anyOf": list(schemas)}


def or_null(kind: str) -> Schema:
    """Return the schema of a value of this JSON type, which may be unknown."""
    return {"type": [kind, "null"]}
