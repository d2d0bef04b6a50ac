"""The JSON Schema of `explain --json`: it is that of the code, and real output has that form and order."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from support.recorded import NAMES, TRACES

from tracer.cli.verbs import explain

TOP = Path(__file__).parents[1]
FILE = TOP / "docs/schema/explain.json"
LOGS = sorted((TOP / "tests/kernel/kmsg/corpus").glob("*.log"))


@cache
def checker() -> jsonschema.Draft202012Validator:
    schema = json.loads(FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def printed(*arguments: str) -> Any:
    done = CliRunner().invoke(explain.command, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def in_order(value: Any, schema: dict[str, Any]) -> None:
    """Assert that the members of each object stand in the order of the schema."""
    if "$ref" in schema:
        schema = checker().schema["$defs"][schema["$ref"].rpartition("/")[2]]
    for one in schema.get("anyOf", []):
        if value is not None and one != {"type": "null"}:
            in_order(value, one)
    if isinstance(value, dict) and "properties" in schema:
        assert list(value) == [name for name in schema["properties"] if name in value]
        for name, member in value.items():
            in_order(member, schema["properties"][name])
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            in_order(item, schema["items"])


def require_valid(document: Any) -> None:
    errors = [f"{error.json_path}: {error.message[:200]}" for error in checker().iter_errors(document)]
    assert errors == []
    in_order(document, checker().schema)


def test_file_equals_the_one_made_from_the_code() -> None:
    spec = importlib.util.spec_from_file_location("schemas", TOP / "docs/schemas.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["schemas"] = module
    spec.loader.exec_module(module)
    assert FILE.read_text() == module.text(), "update it: .venv/bin/python docs/schemas.py"


@pytest.mark.parametrize("name", NAMES)
def test_recorded_example_has_the_form(name: str) -> None:
    require_valid(printed(str(TRACES / name)))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_kernel_log_has_the_form(log: Path) -> None:
    require_valid(printed("--kmsg", str(log)))


def test_other_member_missing_member_and_other_type_are_refused() -> None:
    document = printed(str(TRACES / "anon"))
    require_valid(document)
    spoilers: tuple[Callable[[Any], object], ...] = (
        lambda kill: kill.update(new=1),
        lambda kill: kill.pop("quality"),
        lambda kill: kill["limit_owner"].update(limit_bytes="100"),
        lambda kill: kill["verdict"].update(cause="bad_luck"),
    )
    for spoil in spoilers:
        spoilt = json.loads(json.dumps(document))
        spoil(spoilt["kills"][0])
        assert not checker().is_valid(spoilt)
