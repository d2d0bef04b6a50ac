"""The registry of causes: the modules that it finds, and those that it refuses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import pytest

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.causes import registry
from tracer.analysis.results.kill import Cause
from tracer.lab.experiments import EXPERIMENTS

DOCUMENT = (Path(__file__).parents[4] / "docs/causes.md").read_text(encoding="utf-8")
OF_THE_JSON = (
    *("anon_growth", "shmem", "swap_exhausted", "unevictable", "kernel_memory", "dirty_writeback"),
    *("protected_cache", "gfp_constrained", "global_pressure", "unknown"),
)
"""The values of `cause` that users of `explain --json` rely on, the first of equals first."""

NAMES = get_args(Cause)
FIELDS = [field.name for field in fields(CauseRecord)]


def source_of_a_cause(*names: str) -> str:
    """Return the source of a module whose record has these fields, each None."""
    given = ", ".join(f"{name}=None" for name in names)
    return f"from {CauseRecord.__module__} import CauseRecord\nCAUSE = CauseRecord({given})\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Make a package of complete causes, which a test may change before the import."""
    folder = tmp_path / "some_causes"
    folder.mkdir()
    for name in (*NAMES, "registry", "__init__"):
        is_cause = name in NAMES
        (folder / f"{name}.py").write_text(source_of_a_cause(*FIELDS) if is_cause else "")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("some_causes")
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_causes"]:
        del sys.modules[name]


def folder_of(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))


def test_causes_are_those_of_the_json_in_order() -> None:
    assert tuple(registry.CAUSES) == OF_THE_JSON


def test_find_whole_package_gives_every_cause(package: ModuleType) -> None:
    assert tuple(registry.find(package)) == NAMES


@pytest.mark.parametrize("lacking", FIELDS)
def test_find_cause_that_lacks_a_field_is_an_import_error(package: ModuleType, lacking: str) -> None:
    others = [name for name in FIELDS if name != lacking]
    (folder_of(package) / "shmem.py").write_text(source_of_a_cause(*others))
    with pytest.raises(ImportError, match=rf"the cause some_causes.shmem is incomplete: .*'{lacking}'$"):
        registry.find(package)


@pytest.mark.parametrize("source", ["", "CAUSE = 'shmem'"])
def test_find_cause_without_a_record_is_an_import_error(package: ModuleType, source: str) -> None:
    (folder_of(package) / "shmem.py").write_text(source)
    with pytest.raises(ImportError, match=r"the cause some_causes\.shmem has no CAUSE"):
        registry.find(package)


def test_find_cause_without_a_module_is_an_import_error(package: ModuleType) -> None:
    (folder_of(package) / "shmem.py").unlink()
    with pytest.raises(ImportError, match="some_causes has no module for the cause shmem"):
        registry.find(package)


def test_find_module_that_is_no_cause_is_an_import_error(package: ModuleType) -> None:
    (folder_of(package) / "cosmic_rays.py").write_text(source_of_a_cause(*FIELDS))
    with pytest.raises(ImportError, match="some_causes has a module that is no cause: cosmic_rays"):
        registry.find(package)


def test_find_takes_the_order_of_the_list(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cause more is a module and a name."""
    (folder_of(package) / "cosmic_rays.py").write_text(source_of_a_cause(*FIELDS))
    monkeypatch.setattr(registry, "Cause", Literal["cosmic_rays", Cause])
    assert tuple(registry.find(package)) == ("cosmic_rays", *NAMES)


def test_document_defines_every_cause() -> None:
    assert [cause for cause in registry.CAUSES if f"`{cause}`" not in DOCUMENT] == []


def test_labels_of_experiments_are_causes() -> None:
    labels = {experiment.cause for experiment in EXPERIMENTS.values()} - {None}
    assert labels <= set(registry.CAUSES) - {"unknown"}
