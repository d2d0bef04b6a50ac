"""The causes of an OOM kill, found among the modules of this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Final, get_args

from tracer.analysis.explain import causes
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.results.kill import Cause


def find(package: ModuleType) -> Mapping[Cause, CauseRecord]:
    """Return the causes of a package in the order of `Cause`, a module each.

    ImportError where a cause has no module, a module is no cause, or its record is missing or lacks a field.
    """
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"registry"}
    names: tuple[Cause, ...] = get_args(Cause)
    if without := sorted(set(names) - modules):
        raise ImportError(f"{package.__name__} has no module for the cause {', '.join(without)}")
    if unknown := sorted(modules - set(names)):
        raise ImportError(f"{package.__name__} has a module that is no cause: {', '.join(unknown)}")
    return {name: _record(f"{package.__name__}.{name}") for name in names}


def _record(name: str) -> CauseRecord:
    try:
        record = getattr(import_module(name), "CAUSE", None)
    except TypeError as error:  # it names the fields that the record lacks
        raise ImportError(f"the cause {name} is incomplete: {error}") from error
    if not isinstance(record, CauseRecord):
        raise ImportError(f"the cause {name} has no CAUSE, which is a CauseRecord")
    return record


CAUSES: Final = find(causes)
