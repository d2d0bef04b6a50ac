"""The registry of causes: the modules that it finds, and those that it refuses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tracer.analysis.explain.causes import registry
from tracer.lab.experiments import EXPERIMENTS

DOCUMENT = (Path(__file__).parents[4] / "docs/causes.md").read_text(encoding="utf-8")
OF_THE_JSON = (
    *("anon_growth", "shmem", "dirty_writeback", "unevictable", "kernel_memory", "gfp_constrained"),
    *("swap_exhausted", "protected_cache", "global_pressure", "unknown"),
)
"""The values of `cause` that users of `explain --json` rely on."""

PARTS = {
    "LABEL": "LABEL = 'x'",
    "weigh": "def weigh(findings): return None",
    "sentence": "def sentence(findings): return ''",
    "cure": "def cure(findings): return iter(())",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Make a package of complete causes, which a test may change before the import."""
    folder = tmp_path / "some_causes"
    folder.mkdir()
    for name in (*OF_THE_JSON, "registry", "__init__"):
        is_cause = name in OF_THE_JSON
        (folder / f"{name}.py").write_text("\n".join(PARTS.values()) if is_cause else "")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("some_causes")
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_causes"]:
        del sys.modules[name]


def folder_of(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))


def test_causes_are_those_of_the_json_in_order() -> None:
    assert tuple(registry.CAUSES) == OF_THE_JSON


def test_labels_are_all_different() -> None:
    labels = [cause.label for cause in registry.CAUSES.values()]
    assert all(labels) and len(set(labels)) == len(labels)


def test_find_whole_package_gives_every_cause(package: ModuleType) -> None:
    assert tuple(registry.find(package)) == OF_THE_JSON


@pytest.mark.parametrize("part", PARTS)
def test_find_cause_without_a_part_is_an_import_error(package: ModuleType, part: str) -> None:
    others = [text for name, text in PARTS.items() if name != part]
    (folder_of(package) / "shmem.py").write_text("\n".join(others))
    with pytest.raises(ImportError, match=rf"the cause some_causes.shmem has no {part}$"):
        registry.find(package)


def test_find_cause_without_a_module_is_an_import_error(package: ModuleType) -> None:
    (folder_of(package) / "shmem.py").unlink()
    with pytest.raises(ImportError, match="some_causes has no module for the cause shmem"):
        registry.find(package)


def test_find_module_that_is_no_cause_is_an_import_error(package: ModuleType) -> None:
    (folder_of(package) / "cosmic_rays.py").write_text("\n".join(PARTS.values()))
    with pytest.raises(ImportError, match="some_causes has a module that is no cause: cosmic_rays"):
        registry.find(package)


def test_document_defines_every_cause() -> None:
    assert [cause for cause in registry.CAUSES if f"`{cause}`" not in DOCUMENT] == []


def test_labels_of_experiments_are_causes() -> None:
    labels = {experiment.cause for experiment in EXPERIMENTS.values()} - {None}
    assert labels <= set(registry.CAUSES) - {"unknown"}
