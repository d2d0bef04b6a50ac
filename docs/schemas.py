"""Write docs/schema/, the JSON Schema of each `--json`, from the types and columns that the code declares.

`python docs/schemas.py` writes the files; tests/test_schemas.py finds one that is older than the code, and
validates real output. All members are required unless the description says otherwise, and no others are
allowed, so a program finds each one that is added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from schema_types import NULL, Definitions, Schema, any_of, array, closed, or_null, reference

from tracer.analysis.explain.words import evidence
from tracer.analysis.results import kill, memory, outcome, quality, sigkill, survivor
from tracer.analysis.views import cache_flow, evictions, timeline
from tracer.capture import trial
from tracer.capture.contents import held
from tracer.categories import LAYERS
from tracer.cli.verbs import doctor, fit, lab
from tracer.enumerations import KILL_WAY
from tracer.fit import search
from tracer.fleet.pushing import passing
from tracer.fleet.reduction import fleet_answer, partial_state
from tracer.fleet.sizing import suggestion
from tracer.kernel import features
from tracer.kernel.kmsg import other_killers
from tracer.lab import checks
from tracer.quantities import EVICTIONS_GROUPINGS, TOP_COLUMNS
from tracer.render.terminal import info_text
from tracer.render.words import kill_list
from tracer.watch import finishing, first_verdicts

FOLDER: Final = Path(__file__).with_name("schema")
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_RESULTS: Final = (kill, memory, quality, survivor)
_FIRST: Final[dict[str, Schema]] = {"schema": {"const": 1}}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_INTEGER: Final[Schema] = {"type": "integer"}
_STRING: Final[Schema] = {"type": "string"}

_KEYS: Final[Mapping[str, Mapping[str, Schema]]] = {
    "file": {
        "inode_id": or_null("integer"),
        "path": or_null("string"),
        "dev": or_null("string"),
        "ino": or_null("integer"),
        "deleted": or_null("boolean"),
        "use": {"enum": [*evictions.USES, None]},
        "owners": _INTEGER,
    },
    "cgroup": {
        "cgroup_id": or_null("integer"),
        "cgroup": or_null("string"),
        "container": or_null("string"),
        "run": or_null("integer"),
        "runs": or_null("integer"),
        "charged_to": {"enum": list(evictions.CHARGED_TO)},
        "task_cgroup_id": _INTEGER,
        "task_cgroup": or_null("string"),
    },
    "cause": {"op": _STRING, "cause": _STRING},
    "process": {
        "tgid": or_null("integer"),
        "comm": or_null("string"),
        "task_cgroup_id": _INTEGER,
        "task_cgroup": or_null("string"),
    },
}
"""Grouping of `evictions` -> the columns before the amounts (`evictions.evictions`)."""
_FLEET: Final = (
    "since until traces begin end broken hosts kills code sigkills traces_without_sigkills"
    " perhaps_repeated_kills workloads evictors"
)
"""The order of `fleet_answer.Fleet.to_dict`."""
_EVICTOR: Final[Mapping[str, Schema]] = {
    "first_look_bytes": or_null("integer"),
    "evictor_tgid": or_null("integer"),
    "evictor_comm": or_null("string"),
    "evictor_cgroup_id": or_null("integer"),
    "evictor_cgroup": or_null("string"),
    "evictor_bytes": _INTEGER,
}
"""The columns behind the amounts of a file."""


def _explain() -> Schema:
    definitions = Definitions(*_RESULTS)
    return _of_explain(definitions, definitions.of(kill.OomReport))


def _explain_list() -> Schema:
    definitions = Definitions(*_RESULTS)
    return _of_explain(definitions, definitions.of(kill_list.ListedKill))


def _of_explain(definitions: Definitions, one_kill: Schema) -> Schema:
    """Return the schema of a document of `explain`, from the schema of a kill."""
    found = definitions.found
    progress = definitions.members(survivor.Progress)
    found["Held"] = closed(_replaced(definitions.members(survivor.Held), "progress", progress))
    found.pop("Progress")
    if "Evidence" in found:  # `analysis.explain.words.evidence.document` adds the sentences
        found["Evidence"] = closed(definitions.members(evidence.EvidenceObject))
        found["Suspect"] = closed(definitions.members(evidence.SuspectObject))
    ended = definitions.of(sigkill.SigkillObject)
    found["Sigkill"]["properties"]["way"] = {"enum": [*KILL_WAY.names]}
    other = array(definitions.of(other_killers.OtherKill))
    members = {
        **_FIRST,
        "trace": or_null("string"),
        "kmsg": _STRING,
        "kills": array(one_kill),
        "held": array(reference("Held")),
        "sigkills": any_of(array(ended), NULL),
        "userspace_kills": other,
        "other_kernel_kills": other,
    }
    return _with_definitions(
        closed(members, ("kmsg", "held", "sigkills", "userspace_kills", "other_kernel_kills")), definitions
    )


def _replaced(members: Mapping[str, Schema], name: str, by: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the members with those of another object in place of `name`."""
    found: dict[str, Schema] = {}
    for member, schema in members.items():
        found |= by if member == name else {member: schema}
    return found


def _info() -> Schema:
    definitions = Definitions(*_RESULTS)
    return _document(definitions, definitions.members(info_text.Summary))


def _timeline() -> Schema:
    names: dict[str, Schema] = {"cgroup": _STRING, "cgroup_id": _INTEGER, "run": _INTEGER}
    names["container"] = or_null("string")
    row = {name: names.get(name) or or_null(_kind(name)) for name in timeline.COLUMNS}
    return array(closed({"time": _TIME, **row}))


def _kind(column: str) -> str:
    """Return the JSON type of the numbers of a column of `timeline`."""
    return "boolean" if column.startswith("is_") else "number" if column.endswith("_ms") else "integer"


def _evictions() -> Schema:
    definitions = Definitions(*_RESULTS)
    members = definitions.members(cache_flow.CacheFlow)
    amounts = dict.fromkeys(evictions.AMOUNTS, _INTEGER)
    rows = []
    for grouping, keys in _KEYS.items():
        name = f"{grouping.capitalize()}Row"
        behind = _EVICTOR if grouping == "file" else {}
        definitions.found[name] = closed({**keys, **amounts, **behind})
        rows.append(reference(name))
    head = {"trace": _STRING, "by": {"enum": list(EVICTIONS_GROUPINGS)}}
    return _document(definitions, {**head, **members, "rows": array(any_of(*rows))})


def _whatif() -> Schema:
    definitions = Definitions(has_flags=False)
    return _document(definitions, {"trace": _STRING, **definitions.members(outcome.WhatIf)})


def _fleet() -> Schema:
    definitions = Definitions()
    members = definitions.members(fleet_answer.Fleet, without=("kills_over_time",))
    found = definitions.found
    found["Broken"] = closed(definitions.members(partial_state.Broken, without=("debug",)))
    suggested = definitions.members(suggestion.Suggestion)
    suggested["no_suggestion_because"] = suggested.pop("reason")
    workload = definitions.members(fleet_answer.Workload)
    found["Workload"] = closed(_replaced(workload, "suggestion", suggested))
    found.pop("Suggestion")
    return _document(definitions, {name: members[name] for name in _FLEET.split()})


def _contents() -> Schema:
    definitions = Definitions(has_flags=False)
    members = definitions.members(held.Contents, without=("time_ns",))
    one = definitions.members(held.CgroupContents)
    definitions.found["CgroupContents"] = closed({**one, "advice": array(_STRING)})  # by render.words
    return _document(definitions, {"time": _TIME, **members})


def _top() -> Schema:
    names = {"enum": [layer.name for layer in LAYERS]}
    layers = {"type": "object", "propertyNames": names, "additionalProperties": _INTEGER}
    beside: dict[str, dict[str, Schema]] = {
        "limit": {"limit_owner": or_null("string")},
        "cache": {"composition_bytes": layers},
    }
    members = {"time": _TIME, "cgroup": _STRING, "cgroup_id": _INTEGER, "name": _STRING}
    for _, column in TOP_COLUMNS:
        members |= {column.field: or_null("number")} | beside.get(column.key, {})
    return closed({**members, "kills": _INTEGER})


def _watch() -> Schema:
    definitions = Definitions()
    line = closed({"kill": definitions.of(first_verdicts.JudgedKill)})
    return _with_definitions(any_of(line, definitions.of(finishing.FinishedTrace)), definitions)


def _lab() -> Schema:
    definitions = Definitions(kill, checks, has_flags=False)
    forms = definitions.of(lab.Document), array(definitions.of(lab.Description))
    return _with_definitions(any_of(*forms), definitions)


def _doctor() -> Schema:
    return _dataclass(doctor.Document, features, trial)


def _fit() -> Schema:
    return _dataclass(fit.Document, search)


def _push() -> Schema:
    return _dataclass(passing.Outcome)


def _kubectl_oom() -> Schema:
    definitions = Definitions()
    kills = any_of(array(definitions.of(fleet_answer.KillCount)), NULL)
    node = closed({"node": _STRING, "kills": kills, "why": or_null("string")})
    return _document(definitions, {"nodes": array(node)})


def _dataclass(record: type, *modules: ModuleType) -> Schema:
    definitions = Definitions(*modules, has_flags=False)
    return _with_definitions(closed(definitions.members(record)), definitions)


def _document(definitions: Definitions, members: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that begins with the number of its schema."""
    return _with_definitions(closed({**_FIRST, **members}), definitions)


def _with_definitions(schema: Schema, definitions: Definitions) -> Schema:
    return {**schema, "$defs": dict(sorted(definitions.found.items()))}


_UNKNOWN: Final = "Sizes are in bytes; null is not known"
_MADE: Final[Mapping[str, tuple[str, str, Callable[[], Schema]]]] = {
    "contents": ("contents --json", f"{_UNKNOWN}, or was not asked for.", _contents),
    "doctor": ("doctor --json", "null is not known, or not measured.", _doctor),
    "evictions": ("evictions --json", f"{_UNKNOWN}, or does not exist.", _evictions),
    "explain": (
        "explain --json",
        f"{_UNKNOWN}, and `quality.unknown` of a kill or cgroup says why.",
        _explain,
    ),
    "explain-list": ("explain --list --json", f"{_UNKNOWN}.", _explain_list),
    "fit": ("fit --json", f"{_UNKNOWN}, or not found.", _fit),
    "fleet": ("fleet --json", f"{_UNKNOWN}, or does not exist.", _fleet),
    "info": ("info --json", f"{_UNKNOWN}. `meta` is the trace's meta.json.", _info),
    "kubectl-oom": ("kubectl oom -A --json", "A node without an answer has null in `kills`.", _kubectl_oom),
    "lab": ("lab NAME --json", "With --all, a line for each experiment; with --list, a list.", _lab),
    "push": ("push --json", "One line, for one trace.", _push),
    "timeline": ("timeline --json", f"{_UNKNOWN}, or no limit is set.", _timeline),
    "top": ("top --json", f"One line, for one cgroup. {_UNKNOWN}, or no limit is set.", _top),
    "watch": ("watch --json", "One line: a kill, or a finished trace, which `--exec` gets as well.", _watch),
    "whatif": ("whatif --json", f"{_UNKNOWN}, or does not exist.", _whatif),
}
"""Name of the file -> the command, what a reader must know, and the function that returns the schema."""


def texts() -> dict[str, str]:
    """Return the content of each file, by its name."""
    found = {}
    for name, (command, about, made) in _MADE.items():
        program = "" if command.startswith("kubectl") else "memcg-tracer "
        head = {"$schema": _DIALECT, "title": f"{program}{command}", "description": about}
        found[f"{name}.json"] = json.dumps(head | made(), indent=1) + "\n"
    return found


if __name__ == "__main__":
    for file_name, text in texts().items():
        (FOLDER / file_name).write_text(text)
