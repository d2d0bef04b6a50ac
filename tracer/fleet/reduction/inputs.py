"""The traces and datasets below paths and URLs.

A folder with `meta.json` is a trace, and one with `dataset.json` a dataset; their subfolders are not
searched. A symbolic link is followed only if the user names it, so that a cycle of links is never walked. A
folder whose name begins with a dot is read only if the user names it, too: in a spool of `watch`, it is a
trace that is being started or removed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import TraceError
from tracer.fleet.dataset import listing
from tracer.fleet.pushing.attempts import reason
from tracer.fleet.pushing.target import Target, TargetError
from tracer.trace.layout import META
from tracer.urls import is_url, shown_url

DATASET: Final = listing.MARKER


@dataclass(frozen=True, slots=True)
class Place:
    """A folder: an absolute local path, or a path below `target`, the URL that the user named.

    `shown` is the path or URL for messages, in the form that the user typed. `url` is the URL with its
    password.
    """

    path: str
    shown: str
    target: Target | None = None
    url: str | None = None

    @property
    def address(self) -> str:
        """Return the absolute path, or the URL."""
        return self.path if self.url is None else self.url


@dataclass(frozen=True, slots=True)
class Inputs:
    """The traces and datasets that were found, in order and each once.

    `empty` has the paths below which nothing was found. `unreadable` has (folder, reason) for each folder
    that could not be listed.
    """

    traces: Sequence[Place]
    datasets: Sequence[Place]
    empty: Sequence[str] = ()
    unreadable: Sequence[tuple[str, str]] = ()


def find(paths: Iterable[str]) -> Inputs:
    """Return the traces and datasets at or below each path or URL.

    Raises TraceError for a path that does not exist or cannot be read.
    """
    found: dict[str, dict[str, Place]] = {META: {}, DATASET: {}}
    empty, unreadable = [], dict[str, str]()
    for path in paths:
        is_empty = True
        for marker, place in _below(path, unreadable):
            found[marker].setdefault(place.address, place)
            is_empty = False
        if is_empty:
            empty.append(path)
    traces, datasets = (sorted(places.values(), key=lambda place: place.shown) for places in found.values())
    return Inputs(traces, datasets, empty, sorted(unreadable.items()))


def _below(path: str, unreadable: dict[str, str]) -> Iterator[tuple[str, Place]]:
    """Yield the marker and the place of each trace and dataset."""
    if not is_url(path):
        yield from _on_this_machine(path, unreadable)
        return
    target = Target(path)
    if target.is_local:
        yield from _on_this_machine(target.root, unreadable)
        return

    def refuse(folder: str, error: TargetError) -> None:
        unreadable[target.url_of(folder)] = str(error)

    files = target.list("", refuse)
    for marker, folder in _marked(files):
        if any(part.startswith(".") for part in folder.split("/")):
            continue
        url = f"{path.rstrip('/')}/{folder}" if folder else path
        yield marker, Place(folder, shown_url(url), target, url)


def _marked(files: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (marker, folder) of the outermost folders that hold a marker."""
    split = (posixpath.split(file) for file in files)
    marked = sorted((folder, name) for folder, name in split if name in (META, DATASET))
    outer: str | None = None
    for folder, name in marked:
        if outer is not None and (folder == outer or folder.startswith(f"{outer}/") or not outer):
            continue
        outer = folder
        yield name, folder


def _on_this_machine(path: str, unreadable: dict[str, str]) -> Iterator[tuple[str, Place]]:
    root = Path(path)
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise TraceError(f"{path} {what}: name a trace, a dataset, a folder with such, or a URL")

    def refuse(error: OSError) -> None:
        if error.filename == str(root):
            raise TraceError(f"cannot read {path}: {error.strerror}") from error
        unreadable[str(error.filename)] = reason(error)

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for marker in (DATASET, META):
            if marker in files and (marker == META or os.path.isfile(f"{folder}/{marker}")):  # noqa: PTH113
                yield marker, Place(os.path.abspath(folder), folder)  # noqa: PTH100  links stay as they are
                folders.clear()
                break
