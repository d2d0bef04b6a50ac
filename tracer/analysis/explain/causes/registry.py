"""The causes of an OOM kill, found among the modules of this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Final, get_args

from tracer.analysis.explain import causes
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Cause, Suspect

_PARTS: Final = ("LABEL", "weigh", "sentence", "cure")


@dataclass(frozen=True, slots=True)
class CauseRecord:
    """A cause with the parts of its module; the package describes them."""

    label: str
    weigh: Callable[[Findings], Suspect | None]
    sentence: Callable[[Findings], str]
    cure: Callable[[Findings], Iterator[str]]


def find(package: ModuleType) -> Mapping[Cause, CauseRecord]:
    """Return the causes of a package in the order of `Cause`, a module each.

    ImportError where a cause has no module, a module is no cause, or a module lacks a part.
    """
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"registry"}
    names: tuple[Cause, ...] = get_args(Cause)
    if without := sorted(set(names) - modules):
        raise ImportError(f"{package.__name__} has no module for the cause {', '.join(without)}")
    if unknown := sorted(modules - set(names)):
        raise ImportError(f"{package.__name__} has a module that is no cause: {', '.join(unknown)}")
    return {name: _record(import_module(f"{package.__name__}.{name}")) for name in names}


def _record(module: ModuleType) -> CauseRecord:
    if lacking := [part for part in _PARTS if not hasattr(module, part)]:
        raise ImportError(f"the cause {module.__name__} has no {', no '.join(lacking)}")
    return CauseRecord(module.LABEL, module.weigh, module.sentence, module.cure)


CAUSES: Final = find(causes)
