"""The argument of a verb that names a trace: its path, a name of what was killed, or nothing at all.

A name, or nothing, stands for a trace with a kill: the newest one of the directory of `watch`, or else of
`traces/`, where the recording verbs write by default. If there is none, a name is that of a trace in one of
them. A line on standard error says which was taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracer.cli import standard_streams
from tracer.errors import TracerError
from tracer.watch.service import STATE_FOLDER

if TYPE_CHECKING:
    from tracer.analysis.trace import AnalysedTrace

FOLDERS: Final = (Path(STATE_FOLDER), Path("traces"))
OF_TOP: Final = "top-"
"""The begin of the names of the folders in which `top` writes its traces, in `traces/`."""

_CGROUPS: Final = "/sys/fs/cgroup/"
_MOST_CELLS: Final = 60

argument = click.argument(
    "path", metavar="[TRACE|NAME]", type=click.Path(path_type=Path, readable=False), required=False
)


@dataclass(frozen=True)
class Found:
    """A trace, and the name that the user gave for it, which then chooses its cgroups too."""

    trace: AnalysedTrace
    name: str | None


def open_trace(path: Path | None) -> Found:
    """Return the trace that the argument means. Raises TracerError if there is none."""
    with standard_streams.progress_of("looking for the trace"):
        found = find(path)
    if found is not None:
        return found
    hint = "memcg-tracer explain" + ("" if path is None else f" {path}")
    raise TracerError(f"{nothing_found(path)}; {hint} reads the kernel log as well")


def find(path: Path | None) -> Found | None:
    """Return the trace that the argument means; None if it is a name, or nothing, and no trace has its kill.

    Raises TracerError for the path of a trace that cannot be read.
    """
    from tracer.analysis.core import naming
    from tracer.trace.meta import is_trace

    if path is not None:
        _require_readable(path)
    if path is not None and (is_trace(path) or (_exists(path) and not _is_a_cgroup(path))):
        return Found(_opened(path), None)
    if path is not None and _is_a_place(path):
        beside = [one.name for one in _traces_in(path.parent, is_of_top=True)]
        near = _near([str(path.parent / name) for name in naming.similar(beside, path.name)])
        raise TracerError(f"there is no trace '{_shown(path)}': no such file or directory{near}")
    name = None if path is None else str(path)
    for folder in FOLDERS:
        if (trace := _with_newest_kill(folder, name)) is not None:
            what = "the newest kill" if name is None else f"the newest kill of {name!r}"
            note(f"{what}: {trace.path}")
            return Found(trace, name)
    return None if name is None else _called(name)


def _called(name: str) -> Found | None:
    """Return the trace in one of the folders whose own name this is: people read it in a listing of them."""
    from tracer.trace.meta import is_trace

    for path in (folder / name for folder in FOLDERS if "/" not in name):
        _require_readable(path)
        if is_trace(path):
            note(f"the trace {path}")
            return Found(_opened(path), None)
    return None


def _opened(path: Path) -> AnalysedTrace:
    from tracer.analysis.trace import AnalysedTrace

    return AnalysedTrace(path)


def nothing_found(path: Path | None) -> str:
    """Return the sentence that says what was looked for, and where."""
    folders = " and ".join(f"{folder}/" for folder in FOLDERS)
    unreadable = [folder for folder in FOLDERS if folder.is_dir() and not os.access(folder, os.R_OK)]
    why = f" (only root can read {unreadable[0]})" if unreadable else ""
    if path is None:
        return f"no trace with a kill in {folders}{why}"
    near = _near(_similar(str(path)))
    return f"there is no trace '{_shown(path)}', nor one with a kill of that name in {folders}{why}{near}"


def _near(names: Sequence[str]) -> str:
    return "".join(f"; near it: {_shown(Path(name))}" for name in names[:1])


def _similar(name: str) -> list[str]:
    """Return the similar names, of the traces in the folders and of their cgroups."""
    from tracer.analysis.core import naming

    names: dict[str, None] = {}
    for path in (path for folder in FOLDERS for path in _traces_in(folder)):
        names[path.name] = None
        with suppress(TracerError):
            names |= dict.fromkeys(naming.typed_names(naming.places_of(_opened(path).cgroups)))
    return naming.similar(list(names), name)


def _shown(path: Path) -> str:
    from tracer.render.words.escape import fitted

    return fitted(str(path), _MOST_CELLS)


def note(text: str) -> None:
    """Write a line about the choice to standard error."""
    from tracer.render.words.escape import visible

    click.echo(f"memcg-tracer: {visible(text)}", err=True)


def _require_readable(path: Path) -> None:
    if _exists(path) and not os.access(path, os.R_OK):
        raise TracerError(
            f"{path} cannot be read by this user: use sudo, or become its owner (sudo chown -R $USER {path})"
        )


def _exists(path: Path) -> bool:
    """Return whether there is such a file; a name may be too long for one, or in a folder of others."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_a_place(path: Path) -> bool:
    """Return whether a path can only be that of a file: its folder exists, and it is no cgroup.

    `/web` may be a cgroup, and `shop/web` a pod in its namespace.
    """
    folder = path.parent
    return folder not in (Path(), Path("/")) and _exists(folder) and not _is_a_cgroup(path)


def _is_a_cgroup(path: Path) -> bool:
    return str(path.absolute()).startswith(_CGROUPS)


def _with_newest_kill(folder: Path, name: str | None) -> AnalysedTrace | None:
    """Return the trace in a folder with the newest kill that concerns `name`.

    Traces that ended before a kill that was found cannot have a newer one, and are not opened.
    """
    newest: tuple[datetime, AnalysedTrace] | None = None
    for ended, path in _by_end(folder):
        if newest is not None and ended is not None and ended <= newest[0]:
            break
        with suppress(TracerError):  # a damaged trace, or one without the name, is not the one
            trace = _opened(path)
            times = [report.time for report in trace.outlined(name)[0] if report.time is not None]
            if times and (newest is None or max(times) > newest[0]):
                newest = max(times), trace
    return None if newest is None else newest[1]


def _by_end(folder: Path) -> Iterator[tuple[datetime | None, Path]]:
    """Yield (end, path) of the traces in a folder, those without an end and then the latest first."""
    from tracer.trace.meta import read_meta

    found = []
    for path in _traces_in(folder):
        with suppress(TracerError):
            ended = read_meta(path)["ended"]
            found.append((None if ended is None else datetime.fromisoformat(ended), path))
    yield from ((end, path) for end, path in found if end is None)
    yield from sorted(((end, path) for end, path in found if end is not None), reverse=True)


def _traces_in(folder: Path, *, is_of_top: bool = False) -> Iterator[Path]:
    """Yield the traces in a folder, and in the folders of `top` in it. `is_of_top`: it is one of these, which
    have none of their own."""
    from tracer.trace.meta import is_trace

    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if is_trace(path):
                yield path
            elif entry.name.startswith(OF_TOP) and not is_of_top:
                yield from _traces_in(path, is_of_top=True)
