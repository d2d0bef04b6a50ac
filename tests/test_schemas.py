"""The JSON Schema of each `--json`: it is that of the code, and real output has that form and order.

The tests of verbs that need more than a trace check their own output with `support.schemas.require_form`.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.recorded import NAMES, TRACES
from support.schemas import SCHEMAS, checker, require_form

from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.cli.group import group
from tracer.cli.verbs import evictions, explain, info, timeline, whatif
from tracer.quantities import EVICTIONS_GROUPINGS
from tracer.watch.first_verdicts import FirstVerdict

TOP = Path(__file__).parents[1]
LOGS = sorted((TOP / "tests/kernel/kmsg/corpus").glob("*.log"))


def printed(verb: click.Command, *arguments: str) -> Any:
    done = CliRunner().invoke(verb, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_files_equal_the_ones_made_from_the_code() -> None:
    texts = runpy.run_path(str(TOP / "docs/schemas.py"))["texts"]()
    assert {path.name: path.read_text() for path in SCHEMAS.glob("*.json")} == texts, (
        "update them: .venv/bin/python docs/schemas.py"
    )


def test_every_verb_with_json_has_a_schema_and_a_line_in_the_list() -> None:
    context = click.Context(group)
    verbs = {name: group.get_command(context, name) for name in group.list_commands(context)}
    with_json = {
        name
        for name, verb in verbs.items()
        if verb and any("--json" in option.opts for option in verb.params)
    }
    made = {path.stem for path in SCHEMAS.glob("*.json")}
    assert made == with_json | {"explain-list", "kubectl-oom"}
    listed = re.findall(
        r"^\| \[(.*?)\.json\]\(\1\.json\) \|", (SCHEMAS / "README.md").read_text(), re.MULTILINE
    )
    assert listed == sorted(made)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_example_has_the_form(name: str) -> None:
    require_form("explain", printed(explain.command, str(TRACES / name)))


@pytest.mark.parametrize("name", ["page-cache", "sharedbuffers", "thrash"])
def test_other_views_of_a_recorded_example_have_the_form(name: str) -> None:
    path = str(TRACES / name)
    require_form("info", printed(info.command, path))
    require_form("timeline", printed(timeline.command, path, "--every", "1s"))
    require_form("whatif", printed(whatif.command, path))


@pytest.mark.parametrize("verb", ["evictions", "explain"])
def test_committed_document_has_the_form(verb: str) -> None:
    require_form(verb, json.loads((TRACES / f"page-cache.{verb}.json").read_text()))


def test_list_of_kills_has_the_form() -> None:
    document = printed(explain.command, str(TRACES / "group-kill"), "--list")
    assert document["kills"]
    require_form("explain-list", document)


@pytest.mark.parametrize("sender", [Party(2, "runc", "/system.slice", None), None])
def test_ended_process_has_the_form(sender: Party | None) -> None:
    target, above = Party(1, "web", "/web", "web"), (Party(3, "systemd"),)
    ended = Sigkill(None, target, sender, above if sender else (), "pidfd", 10.0, 30 << 20, None, 0.5)
    document = {"schema": 1, "trace": "t", "kills": [], "sigkills": [ended.to_dict()]}
    require_form("explain", document)


def test_judged_kill_has_the_form() -> None:
    kill = {"time": 1_796_000_000_000_000_000, "limit_bytes": None, "pid": 7, "comm": "web"}
    require_form("watch", {"kill": FirstVerdict(kill, "web", "anon_growth", "It grew.").document()})


@pytest.mark.parametrize("by", EVICTIONS_GROUPINGS)
@pytest.mark.parametrize("name", ["page-cache", "leftover"])
def test_evictions_of_each_grouping_have_the_form(name: str, by: str) -> None:
    require_form("evictions", printed(evictions.command, str(TRACES / name), "--by", by))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_kernel_log_has_the_form(log: Path) -> None:
    require_form("explain", printed(explain.command, "--kmsg", str(log)))


def every_object(value: Any) -> list[dict[str, Any]]:
    """Return all objects of a schema that have a list of members."""
    if isinstance(value, dict):
        inner = [one for item in value.values() for one in every_object(item)]
        return [value, *inner] if isinstance(value.get("properties"), dict) else inner
    return [one for item in value for one in every_object(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_every_object_of_a_schema_is_closed_and_requires_all_members_of_a_type(path: Path) -> None:
    schema = checker(path.stem).schema
    for one in every_object(schema):
        assert one["additionalProperties"] is False
        assert one is schema or one["required"] == list(one["properties"])


def test_other_member_missing_member_and_other_type_are_refused() -> None:
    document = printed(explain.command, str(TRACES / "anon"))
    require_form("explain", document)
    spoilers: tuple[Callable[[Any], object], ...] = (
        lambda kill: kill.update(new=1),
        lambda kill: kill.pop("quality"),
        lambda kill: kill["limit_owner"].update(limit_bytes="100"),
        lambda kill: kill["verdict"].update(cause="bad_luck"),
    )
    for spoil in spoilers:
        spoilt = json.loads(json.dumps(document))
        spoil(spoilt["kills"][0])
        assert not checker("explain").is_valid(spoilt)


def test_other_order_of_members_is_refused() -> None:
    document = printed(info.command, str(TRACES / "anon"))
    with pytest.raises(AssertionError):
        require_form("info", dict(reversed(document.items())))
