"""The directory of a trace on this machine, also for a trace at a URL."""

from __future__ import annotations

import json
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tracer.errors import TraceError, TracerError
from tracer.fleet.pushing.attempts import reason
from tracer.fleet.pushing.target import Target, TargetError
from tracer.fleet.reduction.inputs import Place
from tracer.trace import layout
from tracer.trace.meta import MOST_BYTES


def meta_of(place: Place) -> dict[str, Any]:
    """Return the content of a trace's meta.json; {} if it is damaged, which reading the trace will report."""
    with suppress(TracerError, OSError, ValueError, RecursionError):
        if place.target is None:
            folder = Path(place.path)
            with layout.open_file(folder, folder / layout.META) as file:
                found: Any = json.loads(file.read(MOST_BYTES))
        else:
            path = f"{place.path}/{layout.META}".lstrip("/")
            found = json.loads(place.target.read(path, MOST_BYTES) or b"")
        if isinstance(found, dict):
            return found
    return {}


@contextmanager
def local_trace(place: Place) -> Iterator[Path]:
    """Yield the directory of the trace; the copy of a remote one is removed at the end.

    Raises TraceError if a remote trace cannot be fetched, and for names that lead out of the directory.
    """
    if place.target is None:
        yield Path(place.path)
        return
    name = posixpath.basename(place.path)
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-") as folder:
        trace = Path(folder) / (name if name.strip(".") else "trace")
        try:
            _fetch(place, place.target, trace)
        except TargetError as error:
            raise TraceError(str(error)) from error
        except OSError as error:
            raise TraceError(f"cannot copy {place.shown} to {folder}: {reason(error)}") from error
        yield trace


def _fetch(place: Place, target: Target, trace: Path) -> None:
    files = target.list(place.path)
    if layout.META not in files:
        raise TraceError(f"{place.shown} is gone: it was removed after it had been found")
    for file in files:
        within = PurePosixPath(file)
        if within.is_absolute() or ".." in within.parts:
            raise TraceError(f"{place.shown} has a file outside of its directory")
        if file != layout.META and not layout.FILE.fullmatch(file):
            continue
        copy = trace / within
        copy.parent.mkdir(parents=True, exist_ok=True)
        target.get(f"{place.path}/{file}".lstrip("/"), copy)
