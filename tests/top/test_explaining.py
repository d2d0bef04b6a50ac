"""The explanation in the view: it names no option, because nobody can type one there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.recorded import TRACES
from synthetic.restarts import Restarts

from tracer.cli.standard_streams import SWITCH
from tracer.cli.verbs import explain
from tracer.top import explaining


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    restarts = Restarts(3, cgroups=1, charges=12, folios=8)
    return restarts.write(tmp_path_factory.mktemp("loop") / "trace")


def options_in(arguments: list[str]) -> list[str]:
    shown = CliRunner().invoke(explain.command, arguments, catch_exceptions=False).output
    assert len(shown.splitlines()) > 3
    return re.findall(r"(?<![\w-])(?:-v|--[a-z]+)\b", shown)


@pytest.mark.parametrize("name", ["page-cache", "example", "throttle", None])
def test_explanation_in_the_view_names_no_option(
    name: str | None, loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("end_with_parent", "be_first_victim"):
        monkeypatch.setattr(explaining, part, lambda: None)
    monkeypatch.setattr(os, "dup2", lambda _from, _to: None)
    asked = list[tuple[str, ...]]()
    monkeypatch.setattr(explaining, "become_command", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    explaining.main([str(loop if name is None else TRACES / name), "*"])
    ((verb, *arguments),) = asked
    assert verb == "explain"
    assert os.environ[SWITCH] == "off"  # on a slow machine, the text would begin with the progress
    assert options_in(arguments) == []
    assert options_in([word for word in arguments if word != "--in-view"])
