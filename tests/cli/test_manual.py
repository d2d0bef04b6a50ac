"""The manual docs/memcg-tracer.1: it has every verb and every option, and is valid mdoc."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from support.manual_options import options

from tracer.cli import group
from tracer.wire.streams import RING_BYTES

MANUAL = Path(__file__).parents[2] / "docs" / "memcg-tracer.1"
VERBS = sorted(group.VERBS)


def options_of(verb: str) -> list[list[str]]:
    """Return the spellings of each option of a verb."""
    command = importlib.import_module(group.module_of(verb)).command
    return [
        [*parameter.opts, *parameter.secondary_opts]
        for parameter in command.params
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts and not parameter.hidden
    ]


def synopsis(verb: str, source: str) -> set[str]:
    """Return the options in the synopsis of a verb, each without its first dash."""
    lines = re.search(rf"^\.Cm {verb}\n(.*?)^\.(?:Nm|Sh)", source, flags=re.MULTILINE | re.DOTALL)
    assert lines is not None, f"no synopsis of {verb}"
    return set(re.findall(r"\bFl ([\w-]+)", lines[1]))


def section(verb: str, source: str) -> str:
    """Return what the manual says about a verb, below its name in the list."""
    ends = rf"^\.It Cm (?:{'|'.join(VERBS)})$|^\.Sh "
    lines = re.search(rf"^\.It Cm {verb}$(.*?)(?={ends})", source, flags=re.MULTILINE | re.DOTALL)
    assert lines is not None, f"no section of {verb}"
    return lines[1]


def test_every_module_of_verbs_is_in_the_list() -> None:
    folder = Path(group.__file__).with_name("verbs")
    assert sorted(path.stem for path in folder.rglob("*.py") if path.stem != "__init__") == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_verb_and_its_options_are_in_the_manual(verb: str) -> None:
    source = MANUAL.read_text()
    assert re.search(rf"^\.It Cm {verb}$", source, flags=re.MULTILINE)
    documented = {f"-{flag}" for flag in synopsis(verb, source)}
    spellings = options_of(verb)
    assert [names for names in spellings if not documented & set(names)] == []
    assert documented - {name for names in spellings for name in names} - {"--"} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_items_of_options_are_in_the_section_of_their_verb(verb: str) -> None:
    """tests/test_generated_lists.py compares the items with the help."""
    items = re.findall(r"Generated: option (\w+) ([\w-]+)", section(verb, MANUAL.read_text()))
    assert sorted(items) == sorted((of, name) for of, name, *_ in options() if of == verb)


def test_manual_names_no_verb_that_does_not_exist() -> None:
    documented = re.findall(r"^\.It Cm (\w+)$", MANUAL.read_text(), flags=re.MULTILINE)
    assert sorted(documented) == VERBS


def test_default_sizes_of_rings_are_in_the_manual() -> None:
    (text,) = re.findall(r"the defaults are (.*?)^\.It", MANUAL.read_text(), flags=re.MULTILINE | re.DOTALL)
    documented: dict[str, int] = {}
    pages = 0
    for size, stream in re.findall(r"(\d+) for|\.Li (\w+)", text):
        pages = int(size or pages)
        documented |= {stream: pages} if stream else {}
    of_streams = {name: size for name, size in RING_BYTES.items() if name not in ("watched", "wake")}
    assert documented == {name: size >> 12 for name, size in of_streams.items()}


def test_manual_is_well_formed() -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff to check the manual with")
    result = subprocess.run(["groff", "-Tutf8", "-mandoc", "-ww", MANUAL], capture_output=True, check=True)
    assert result.stderr == b""
