"""The schemas of docs/schema, and the check that a document has the form and the order of one of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema

SCHEMAS: Final = Path(__file__).parents[2] / "docs/schema"


@cache
def checker(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of docs/schema/NAME.json."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def require_form(name: str, document: Any) -> None:
    """Fail unless a document fits the schema, and the members of its objects stand in the schema's order."""
    found = checker(name)
    assert [f"{error.json_path}: {error.message[:200]}" for error in found.iter_errors(document)] == []
    _require_order(document, found.schema, found)


def _require_order(value: Any, schema: dict[str, Any], found: jsonschema.Draft202012Validator) -> None:
    if not isinstance(value, dict | list):
        return
    if "$ref" in schema:
        schema = found.schema["$defs"][schema["$ref"].rpartition("/")[2]]
    possible = [one for one in schema.get("anyOf", []) if one.get("type") in (None, _type_of(value))]
    for one in possible:
        if len(possible) == 1 or found.evolve(schema={**one, "$defs": found.schema["$defs"]}).is_valid(value):
            _require_order(value, one, found)
            return
    if isinstance(value, dict) and "properties" in schema:
        assert list(value) == [name for name in schema["properties"] if name in value]
        for name, member in value.items():
            _require_order(member, schema["properties"][name], found)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            _require_order(item, schema["items"], found)


def _type_of(value: dict[str, Any] | list[Any]) -> str:
    return "object" if isinstance(value, dict) else "array"
