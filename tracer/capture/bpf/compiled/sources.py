"""The C text that is compiled: this kernel's structures, the sources of bpf/, and the chosen hooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tracer
from tracer.kernel import struct_header
from tracer.kernel.btf import Btf
from tracer.kernel.probes import Hook, Kind

_INCLUDE: Final = re.compile(r'^#include "(.+)"$', re.MULTILINE)


def bpf_folder() -> Path:
    """Return the folder of the BPF sources: beside the package in a checkout, inside it when installed."""
    package = Path(tracer.__file__).parent
    return next(p for p in (package / "bpf", package.parent / "bpf") if (p / "events.h").is_file())


def source_text(btf: Btf, hooks: Sequence[Hook]) -> str:
    """Return the one compilation unit of all programs, which share maps.

    The unit has a line for each function that is hooked (bpf/shared/kernel.h).
    """
    parts = [f'#line 1 "{name}"\n{text}' for name, text in ordered_sources(bpf_folder()).items()]
    lines = [
        f"{hook.kind.upper()}({hook.function}, {len(btf.function_arguments(hook.target) or ())})"
        for hook in {hook.program: hook for hook in hooks if hook.kind is not Kind.TYPED_TRACEPOINT}.values()
    ]
    return "\n".join([struct_header.header(btf), *parts, '#line 1 "hooks"', *lines, ""])


def ordered_sources(folder: Path, programs: str = "*.bpf.c") -> dict[str, str]:
    """Return name below `folder` -> text of the sources, each after the sources that it includes.

    `programs` is the pattern of the programs; the sources that they include follow from them.

    The lines that include sources are removed: BCC rewrites calls of map methods in the main file only.
    """
    folder = folder.resolve()
    texts: dict[Path, str] = {}
    for program in sorted(folder.glob(programs)):
        _add(program, texts)
    return {str(path.relative_to(folder)): text for path, text in texts.items()}


def _add(path: Path, texts: dict[Path, str]) -> None:
    if path in texts:
        return
    text = path.read_text()
    for name in _INCLUDE.findall(text):
        _add((path.parent / name).resolve(), texts)
    texts[path] = _INCLUDE.sub("", text)
