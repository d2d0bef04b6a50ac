"""The action for GitHub and the template for GitLab: their commands are those of the tracer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tracer.cli.verbs import record
from tracer.version import VERSION

FOLDER = Path(__file__).parents[2] / "docs/deploy/ci"


def scripts(name: str) -> list[str]:
    document: Any = yaml.safe_load((FOLDER / name).read_text())
    if name == "action.yml":
        return [step["run"] for step in document["runs"]["steps"]]
    (job,) = document.values()
    return ["\n".join(job[part]) for part in ("before_script", "script")]


@pytest.mark.parametrize("name", ["action.yml", "gitlab.yml"])
def test_scripts_are_valid_bash_without_text_of_others(name: str) -> None:
    for script in scripts(name):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert "${{" not in script, "an input in a script would be code"


@pytest.mark.parametrize("name", ["action.yml", "gitlab.yml"])
def test_options_are_those_of_record(name: str) -> None:
    known = {name for one in record.command.params if isinstance(one, click.Option) for name in one.opts}
    (line,) = [
        one
        for script in scripts(name)
        for one in script.replace("\\\n", "").splitlines()
        if " record " in one
    ]
    options = set(
        re.findall(r"(?<=[ +])(-{1,2}[a-z]+)", " " + line.partition(" record ")[2].partition(" -- ")[0])
    )
    assert {"--summary", "-o", "-f"} <= options <= known
    assert f"memcg-tracer_{VERSION}_amd64.deb" in (FOLDER / name).read_text()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("sudo") is None, reason="needs root and sudo")
def test_command_of_the_action_has_the_paths_of_earlier_steps(tmp_path: Path) -> None:
    """The tracer's options are left out, as it gives the command its own environment."""
    script = re.sub(r"memcg-tracer record .*? -- ", "", scripts("action.yml")[1].replace("\\\n", ""))
    paths = {"PATH": f"/of/a/step:{os.environ['PATH']}", "LD_LIBRARY_PATH": "/of/a/step/lib"}
    environment = os.environ | paths | {"RUNNER_TEMP": str(tmp_path), "LIMIT": ""}
    environment["COMMAND"] = 'echo "$PATH $LD_LIBRARY_PATH"; exit 3'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, " ".join(paths.values()) + "\n"), done.stderr
