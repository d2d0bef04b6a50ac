"""The dashboard and the alert rules ask only for metrics that there are, and their tools accept them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.exposition import choose_encoder
from support.scraping.serve_parts import Parts
from synthetic.live_rows import cgroup

from tracer.cli.verbs.printed import alerts, dashboard
from tracer.metric_families import FAMILIES
from tracer.serve.packaging import grafana, text_of

NAMES = {family.sample_name for family in FAMILIES}
LABELS = {label for family in FAMILIES for label in family.labels} | {"instance"}
DASHBOARD: dict[str, Any] = json.loads(grafana.text())


def queries() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    return [*targets, *variables, *(one["expr"] for one in DASHBOARD["annotations"]["list"])]


@pytest.mark.parametrize("text", ["\n".join(queries()), text_of("alerts.yml")], ids=["dashboard", "alerts"])
def test_metrics_and_labels_exist(text: str) -> None:
    asked = set(re.findall(r"\bmemcg_tracer_\w+", text))
    assert len(asked) >= 6
    assert asked <= NAMES
    labels = set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r'(\w+)=~?"', text))
    assert labels <= LABELS
    grouped = re.findall(r"\bby \(([\w, ]+)\)", text)
    assert {label for group in grouped for label in group.split(", ")} <= LABELS


def test_each_family_of_a_cgroup_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"\bmemcg_tracer_\w+", "\n".join(queries())))
    assert shown == NAMES


def test_panels_do_not_overlap_and_have_a_description() -> None:
    taken = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & taken
        assert panel["description"].endswith(".")
        taken |= cells
    assert max(column for column, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_legends_and_choices_have_the_names_of_containers() -> None:
    """A cgroup without a name has its path. Ids of containers are in no legend."""
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert not [target for target in targets if "{{id}}" in target["legendFormat"]]
    by_cgroup = [target for target in targets if "{{cgroup}}" in target["legendFormat"]]
    assert len(by_cgroup) == 10
    for target in by_cgroup:
        assert "{{namespace}} {{pod}} {{cgroup}}" in target["legendFormat"]
        assert target["expr"].endswith('"cgroup", "$1", "id", "(.*)"), "cgroup", "$1", "name", "(.+)")')
    names = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance", "namespace", "pod", "name", "id", "most"]


def test_default_choice_shows_few_cgroups() -> None:
    """The kinds of a sum are of one cgroup: sums over a cgroup and one below it would count twice."""
    (most,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "most")
    assert most["current"]["value"] == "5"
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            if '$id"' in target["expr"]:
                bound = "topk(1," if re.match(r"sum\b", target["expr"]) else "topk($most,"
                assert bound in target["expr"], panel["title"]


@pytest.mark.parametrize(("verb", "text"), [(dashboard, grafana.text()), (alerts, text_of("alerts.yml"))])
def test_verb_prints_the_file(verb: Any, text: str) -> None:
    assert CliRunner().invoke(verb.command).stdout == text


def promtool() -> str:
    """Return the path of promtool, or skip the test."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here")
    return program


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(text_of("alerts.yml"))
    command = [promtool(), "check", "rules", str(rules)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_promtool_finds_nothing_to_say_of_the_metrics() -> None:
    parts = Parts(cgroup(1), cgroup(3, 1, container="web", container_id="4f"))
    parts.sample(3, 7, 10, psi_some_total_us=1, workingset_refault_file=1)
    parts.kills.kill({"kill_id": 1, "limit_owner_cgroup_id": 3, "cgroup_id": 3})
    parts.kills.explain([(1, "shmem")], None)
    text = "".join(parts.exposition.texts(*choose_encoder("text/plain")))
    command = [promtool(), "check", "metrics"]
    checked = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
