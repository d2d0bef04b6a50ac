"""Result records as values of JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from tracer.schema import LIMITS, UNLIMITED_BYTES


def as_object(record: Any) -> dict[str, Any]:
    """Return a frozen dataclass as a JSON object: each field by `as_json`, limits by `limit_columns`."""
    found: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if item.name in LIMITS:
            found |= limit_columns(value, item.name)
        else:
            found[item.name] = as_json(value)
    return found


def limit_columns(limit_bytes: int | None, name: str = "limit_bytes") -> dict[str, Any]:
    """Return the JSON members of a limit: the limit, null if none is set, and its flag (`schema.LIMITS`),
    null if the limit is not known."""
    is_limited = None if limit_bytes is None else limit_bytes < UNLIMITED_BYTES
    return {name: limit_bytes if is_limited else None, LIMITS[name]: is_limited}


def as_json(value: Any) -> Any:
    """Return the value of a field in JSON; times have microseconds, as in meta.json."""
    if is_dataclass(value):
        return as_object(value)
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
