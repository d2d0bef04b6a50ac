"""A trace on this machine, also one that lies behind a URL."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tracer.errors import TraceError
from tracer.fleet.reduction.inputs import Place
from tracer.trace import layout
from tracer.urls import shown_url


@contextmanager
def local_trace(place: Place) -> Iterator[Path]:
    """Yield the directory of the trace; the copy of a remote one is removed at the end.

    Raises TraceError if a remote one cannot be fetched, and for names that would lead out of the directory.
    """
    if place.filesystem is None:
        yield Path(place.path)
        return
    name = posixpath.basename(place.path)
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-") as folder:
        trace = Path(folder) / (name if name.strip(".") else "trace")
        try:
            _fetch(place, trace)
        except TraceError:
            raise
        except Exception as error:  # those of clients of object stores have no common class
            words = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise TraceError(
                f"cannot read {place.shown}: {shown_url(words) or type(error).__name__}"
            ) from error
        yield trace


def _fetch(place: Place, trace: Path) -> None:
    for file in place.filesystem.find(place.path):
        within = PurePosixPath(posixpath.relpath(file, place.path or "."))
        if within.is_absolute() or ".." in within.parts:
            raise TraceError(f"{place.shown} has a file outside of its directory")
        if str(within) != layout.META and not layout.FILE.fullmatch(str(within)):
            continue
        target = trace / within
        target.parent.mkdir(parents=True, exist_ok=True)
        place.filesystem.get_file(file, str(target))
