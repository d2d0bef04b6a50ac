"""A trace on this machine, also one that lies behind a URL."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tracer.errors import TraceError
from tracer.fleet.reduction.inputs import Place


@contextmanager
def local_trace(place: Place) -> Iterator[Path]:
    """Yield the directory of the trace; the copy of a remote one is removed at the end.

    Raises OSError if the filesystem does, and TraceError for names that would lead out of the directory.
    """
    if place.filesystem is None:
        yield Path(place.path)
        return
    name = posixpath.basename(place.path)
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-") as folder:
        trace = Path(folder) / (name if name.strip(".") else "trace")
        for file in place.filesystem.find(place.path):
            within = PurePosixPath(posixpath.relpath(file, place.path or "."))
            if within.is_absolute() or ".." in within.parts:
                raise TraceError(f"{place.shown} has a file outside of its directory")
            target = trace / within
            target.parent.mkdir(parents=True, exist_ok=True)
            place.filesystem.get_file(file, str(target))
        yield trace
