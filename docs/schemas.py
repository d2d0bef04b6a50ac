"""Write docs/schema/explain.json, the JSON Schema of `explain --json`, from the dataclasses of its objects.

`python docs/schemas.py` writes it; tests/test_schemas.py finds one that is older than the code, and validates
real output. All members are required, and no others are allowed, so a program finds each one that is added.
"""

from __future__ import annotations

import collections.abc
import json
import types
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tracer.analysis.results import kill, memory, quality, survivor
from tracer.enumerations import KILL_WAY
from tracer.schema import LIMITS

FILE: Final = Path(__file__).with_name("schema") / "explain.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MODULES: Final = (kill, memory, quality, survivor)
_SCALARS: Final[dict[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    pd.Timestamp: {"type": "string", "format": "date-time"},
    Any: {},
}
_NULL: Final = {"type": "null"}


class Definitions:
    """The schemas of dataclasses by name; one refers to others by their names."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._names = {"pd": pd} | {
            name: value for module in _MODULES for name, value in vars(module).items() if name[0].isupper()
        }

    def of(self, hint: Any) -> dict[str, Any]:
        """Return the schema of a type: what `analysis.results.forms.as_json` makes of its values."""
        if hint in _SCALARS:
            return _SCALARS[hint]
        if is_dataclass(hint) and isinstance(hint, type):
            return self._reference(hint)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            known = [self.of(one) for one in arguments if one is not types.NoneType]
            return _any_of(*known, *([_NULL] if len(known) < len(arguments) else []))
        if origin is typing.Literal:
            return {"enum": list(arguments)}
        if origin in (tuple, collections.abc.Sequence, list):
            return self._array(arguments)
        if origin in (collections.abc.Mapping, dict):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        raise TypeError(f"no schema for {hint}")

    def _array(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if len(arguments) == 2 and arguments[1] is Ellipsis or len(arguments) == 1:  # noqa: RUF021
            return {"type": "array", "items": self.of(arguments[0])}
        items = [self.of(one) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _reference(self, record: type) -> dict[str, Any]:
        name = record.__name__
        if name not in self.found:
            self.found[name] = {}  # it may refer to itself
            self.found[name] = closed(self.members(record))
        return {"$ref": f"#/$defs/{name}"}

    def members(self, record: type) -> dict[str, Any]:
        """Return the members of the object of a dataclass; a limit is beside its flag."""
        hints = typing.get_type_hints(
            record, vars(__import__(record.__module__, fromlist=["_"])), self._names
        )
        found: dict[str, Any] = {}
        for item in fields(record):
            found[item.name] = self.of(hints[item.name])
            if item.name in LIMITS:
                found[LIMITS[item.name]] = _any_of({"type": "boolean"}, _NULL)
        return found


def closed(members: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the schema of an object with these members, in their order, and no others."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def _any_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _or_null(hint: str) -> dict[str, Any]:
    return {"type": [hint, "null"]}


def explain() -> dict[str, Any]:
    """Return the schema of `explain --json`, without `--list`."""
    definitions = Definitions()
    kill_ = definitions.of(kill.OomReport)
    held = definitions.members(survivor.Held)
    progress = definitions.members(survivor.Progress)
    flat = {
        name: schema
        for member, of_member in held.items()
        for name, schema in (progress.items() if member == "progress" else [(member, of_member)])
    }
    found = definitions.found
    found["Held"] = closed(flat)
    # `analysis.explain.words.evidence.document` adds the sentences.
    found["Evidence"] = closed(
        {
            "kind": {"type": "string"},
            "sentence": {"type": "string"},
            "numbers": {"type": "object"},
            "source": {"type": "array", "items": {"type": "string"}},
        }
    )
    suspect = definitions.members(kill.Suspect)
    found["Suspect"] = closed(
        {
            "cause": suspect["cause"],
            "weight": suspect["weight"],
            "reason": {"type": "string"},
            "evidence": {"$ref": "#/$defs/Evidence"},
        }
    )
    # `analysis.results.sigkill` writes its own objects.
    party = {"pid": _or_null("integer"), **dict.fromkeys(("comm", "cgroup", "container"), _or_null("string"))}
    parent = closed({"pid": _or_null("integer"), "comm": _or_null("string")})
    found["Sigkill"] = closed(
        {
            "time": _any_of(_SCALARS[pd.Timestamp], _NULL),
            "target": closed(party),
            "sender": _any_of(closed({**party, "parents": {"type": "array", "items": parent}}), _NULL),
            "way": {"enum": [*KILL_WAY.names, None]},
            "since_sigterm_s": _or_null("number"),
            "usage_bytes": _or_null("integer"),
            "limit_bytes": _or_null("integer"),
        }
    )
    # `render.terminal.explain_text.other_kill_document`.
    found["OtherKill"] = closed(
        {
            "line": {"type": "integer"},
            "killer": {"type": "string"},
            "victim": _or_null("string"),
            "pid": _or_null("integer"),
            "reason": {"type": "string"},
        }
    )
    members = {
        "schema": {"const": 1},
        "trace": _or_null("string"),
        "kmsg": {"type": "string"},
        "kills": {"type": "array", "items": kill_},
        "held": {"type": "array", "items": {"$ref": "#/$defs/Held"}},
        "sigkills": _any_of({"type": "array", "items": {"$ref": "#/$defs/Sigkill"}}, _NULL),
        "userspace_kills": {"type": "array", "items": {"$ref": "#/$defs/OtherKill"}},
        "other_kernel_kills": {"type": "array", "items": {"$ref": "#/$defs/OtherKill"}},
    }
    optional = ("kmsg", "held", "sigkills", "userspace_kills", "other_kernel_kills")
    about = "Sizes are in bytes; null is not known, and `quality.unknown` of a kill or cgroup says why."
    head = {"$schema": _DIALECT, "title": "memcg-tracer explain --json", "description": about}
    return head | closed(members, optional) | {"$defs": dict(sorted(found.items()))}


def text() -> str:
    """Return the content of the file."""
    return json.dumps(explain(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
