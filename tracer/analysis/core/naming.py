"""Find the cgroups that a person names, the names in the trace for ids, and the cgroups above and below.

The id of a cgroup is the inode number of its directory. So two cgroups that had one path, one after the
other, have two ids: they are two lives of one name (`analysis.core.lives`). A cgroup below that path belongs
to the one that had the path when the cgroup below was made.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, times_ns
from tracer.analysis.core.lives import Life, Lives, containers, made_ns
from tracer.analysis.core.tables import TraceTables
from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups.containers import as_named, short_id, standing
from tracer.stored_names import stored_text


def paths_by_id(cgroups: pd.DataFrame) -> dict[int, str]:
    """Return id -> path, below the mount point of the memory controller."""
    ids = integers(cgroups["cgroup_id"]).tolist()
    return dict(zip(ids, cgroups["path"].astype(str).tolist(), strict=True))


def positions_above(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return id -> the positions in `cgroup_ids` of the cgroups for which a charge to it counts.

    The keys are `cgroup_ids` and all cgroups below any of them. A charge counts for the charged cgroup, whose
    position comes first, and for every cgroup above it.
    """
    paths, lives = paths_by_id(cgroups), Lives(cgroups)
    made = dict(zip(integers(cgroups["cgroup_id"]).tolist(), made_ns(cgroups).tolist(), strict=True))
    above: dict[int, list[int]] = {number: [position] for position, number in enumerate(cgroup_ids)}
    at_path: dict[str, dict[int, int]] = {}
    for position, number in enumerate(cgroup_ids):
        if number in paths:
            at_path.setdefault(paths[number].rstrip("/"), {})[number] = position
    for number, path in paths.items():
        end = len(path.rstrip("/"))
        while (end := path.rfind("/", 0, end)) >= 0:
            parents = at_path.get(path[:end])
            parent = None if parents is None else lives.parent_at(path[:end], made[number])
            if parents is not None and parent in parents:
                above.setdefault(number, []).append(parents[parent])
    return {number: positions for number, positions in above.items() if positions}


def descendants_of(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, Int64s]:
    """Return id -> `Places.descendants(id)`, found in one pass for all `cgroup_ids`."""
    below: list[list[int]] = [[] for _ in cgroup_ids]
    for number, positions in sorted(positions_above(cgroups, cgroup_ids).items()):
        for position in positions:
            below[position].append(number)
    return {number: np.array(ids, np.int64) for number, ids in zip(cgroup_ids, below, strict=True)}


def members_of(trace: TraceTables, cgroup_ids: Sequence[int]) -> Int64s:
    """Return the ids of these cgroups and of all below any of them, ascending."""
    return np.unique(np.concatenate([trace.places.descendants(number) for number in cgroup_ids]))


_MOST_LISTED: Final = 8
_MOST_NEAR: Final = 4
_LEAST_ID_PREFIX: Final = 4
_FOREVER: Final = np.iinfo(np.int64).max
_MOUNTS: Final = ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")


def resolve(cgroups: pd.DataFrame, pattern: str | int) -> list[int]:
    """Return the ids of the cgroups that fit `pattern`, in the order of the table.

    These kinds of patterns are tried in turn, and the first that fits any cgroup is taken: an id; a path
    below the mount point of the memory controller, or with a usual mount point before it; a container's
    name; a pod's name, also as NAMESPACE/POD; the beginning of a container's id; the end of a path, by whole
    components; the same with the name that `record` was given for its cgroup (`--name`, or the command's); a
    glob over paths and container names.

    The pattern is read as a name in the kernel's spelling first, then in the spelling of a trace
    (`tracer.stored_names`).

    Raises TracerError with the nearest names if nothing fits.
    """
    places = places_of(cgroups)
    found = fitting(places, str(pattern))
    if not found:
        text = str(pattern).strip()
        known = f"it has {nearest(typed_names(places), text)}" if places else "it has no cgroups at all"
        raise TracerError(f"no cgroup in this trace fits {text!r}; {known}")
    return [places[position].number for position in found]


class Place(NamedTuple):
    """A cgroup by every name that a person may give it."""

    number: int
    path: str
    container: str | None
    container_id: str | None
    pod: str | None = None
    namespace: str | None = None

    @property
    def typed(self) -> str:
        """The shortest of the names: the path inside a container; the container's name, or the begin of its
        id; or else the path."""
        below = standing(self.path).below
        return below or self.container or short_id(self.container_id or "") or self.path


def places_of(cgroups: pd.DataFrame) -> list[Place]:
    """Return the place of each row."""
    ids, paths = integers(cgroups["cgroup_id"]).tolist(), cgroups["path"].astype(str).tolist()
    return [
        Place(number, path, container.name, container.container_id, container.pod, container.namespace)
        for number, path, container in zip(ids, paths, containers(cgroups), strict=True)
    ]


def fitting(places: Sequence[Place], pattern: str) -> list[int]:
    """Return the positions of the places that fit `pattern`, by the rules of `resolve`."""
    text = pattern.strip()
    spellings = dict.fromkeys((stored_text(text), text))
    return next((found for spelling in spellings if (found := _spelt(places, spelling))), [])


def _spelt(places: Sequence[Place], text: str) -> list[int]:
    whole_paths = _as_paths(text)
    ending = "/" + text.strip("/")
    kinds: tuple[Callable[[Place], bool], ...] = (
        lambda place: text == str(place.number),
        lambda place: place.path in whole_paths,
        lambda place: place.container == text,
        lambda place: place.pod is not None and text in (place.pod, f"{place.namespace}/{place.pod}"),
        lambda place: len(text) >= _LEAST_ID_PREFIX and (place.container_id or "").startswith(text),
        lambda place: place.path.endswith(ending),
        lambda place: as_named(place.path).endswith(ending),
        lambda place: any(
            fnmatch.fnmatchcase(name, text) for name in (place.path, place.container) if name is not None
        ),
    )
    for fits in kinds:
        found = [position for position, place in enumerate(places) if fits(place)]
        if found:
            return found
    return []


def select(trace: TraceTables, pattern: str | int, run: int | None = None) -> list[int]:
    """Return the ids of the cgroups that a verb shows for `pattern`; each represents its subtree.

    These are all lives of all names that fit, in the order of `Lives.in_order`, except cgroups below another
    one of them; with `run`, only that life.

    Raises TracerError with the nearest names if nothing fits, UsageError if `run` does not name one life.
    """
    found = resolve(trace.cgroups, pattern)
    above = positions_above(trace.cgroups, found)
    lives = trace.places.lives
    ids = lives.in_order([number for number in found if len(above.get(number, ())) <= 1])
    return ids if run is None else [_life_of_run(lives.by_name(ids), run)]


def select_run(trace: TraceTables, run: int) -> int:
    """Return the id of life `run` of the only name that has several lives.

    Raises UsageError if there is no such name, or more than one.
    """
    names = trace.places.lives.by_name(with_data(trace))
    restarted = [lives for lives in names if lives[0].runs > 1]
    if not restarted:
        raise UsageError(
            "run chooses one of several lives of a name; every name in this trace has one life: leave it out"
        )
    if len(restarted) > 1:
        listed = ", ".join(repr(lives[0].name) for lives in restarted[:_MOST_LISTED])
        raise UsageError(
            f"run counts the lives of one name, and several names have more than one; choose one of {listed}"
        )
    return _life_of_run(restarted, run)


def _life_of_run(names: Sequence[Sequence[Life]], run: int) -> int:
    if len(names) > 1:
        listed = ", ".join(repr(lives[0].name) for lives in names[:_MOST_LISTED])
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        raise UsageError(f"run counts the lives of one name, and {len(names)} fit: {listed}{more}")
    (lives,) = names
    for life in lives:
        if life.run == run:
            return life.cgroup_id
    runs = ", ".join(str(life.run) for life in lives[:_MOST_LISTED])
    more = f" to {lives[-1].run}" if len(lives) > _MOST_LISTED else ""
    raise UsageError(f"{lives[0].name!r} has no run {run} in this trace: it has {runs}{more}")


def labels_of(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> list[str]:
    """Return the path of each cgroup, or `id:N` if the trace has no path."""
    paths = paths_by_id(cgroups)
    return [paths.get(number) or f"id:{number}" for number in cgroup_ids]


def with_data(trace: TraceTables) -> list[int]:
    """Return the ids of the cgroups with charges or samples in the trace, ordered by path and then by run."""
    ids = np.union1d(trace.charges.cgroups, integers(trace.samples["cgroup_id"])).tolist()
    runs = [trace.places.lives.life_for(number).run for number in ids]
    return [number for *_, number in sorted(zip(labels_of(trace.cgroups, ids), runs, ids, strict=True))]


def with_names(trace: TraceTables, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with columns for the names of its ids; null if the trace has no name.

    `cgroup_id` gives `cgroup` (a path) and `container`; in `reclaim`, where it is the target of an attempt,
    `target_cgroup` and `target_container`. Another id of a cgroup, such as `task_cgroup_id`, gives the path
    without `_id`. `tgid` gives `comm`, unless the table has one; `inode_id` gives `file` (a path, or
    `major:minor inode N` if the kernel knew no name).
    """
    named = frame.copy()
    cgroups = trace.cgroups.set_index("cgroup_id")
    whose = "target_" if "target_source" in frame.columns else ""
    if "cgroup_id" in frame.columns:
        named[f"{whose}cgroup"] = _looked_up(frame["cgroup_id"], cgroups["path"])
        named[f"{whose}container"] = _looked_up(frame["cgroup_id"], cgroups["container"])
    for column in frame.columns:
        name = str(column).removesuffix("_id")
        if name.endswith("_cgroup") and name != column and name not in frame.columns:
            named[name] = _looked_up(frame[column], cgroups["path"])
    if "tgid" in frame.columns and "comm" not in frame.columns:
        named["comm"] = comms(trace, frame)
    if "inode_id" in frame.columns:
        named["file"] = _looked_up(frame["inode_id"], _file_names(trace.inodes))
    return named


def _as_paths(text: str) -> set[str]:
    trimmed = "/" + text.strip("/")
    mounts = [mount for mount in _MOUNTS if (trimmed + "/").startswith(mount + "/")]
    return {trimmed} | {trimmed.removeprefix(mount) or "/" for mount in mounts}


def typed_names(places: Iterable[Place]) -> list[str]:
    """Return the shortest name of each place, each once and in this order."""
    return list(dict.fromkeys(place.typed for place in places))


def nearest(names: Sequence[str], text: str) -> str:
    """Return as text the names most similar to the typed one, or else the first, and the number of others."""
    listed = similar(names, text) or names[:_MOST_NEAR]
    more = f" (and {len(names) - len(listed)} more)" if len(listed) < len(names) else ""
    return ", ".join(map(repr, listed)) + more


def similar(names: Sequence[str], text: str) -> list[str]:
    """Return the names that contain the typed one, or else those that are like it."""
    typed = text.strip("/").casefold()
    containing = [name for name in names if typed and typed in name.casefold()]
    return containing[:_MOST_NEAR] or difflib.get_close_matches(text, names, n=_MOST_NEAR)


def _file_names(inodes: pd.DataFrame) -> pd.Series:
    numbered = inodes["dev"].astype(str) + " inode " + inodes["ino"].astype(str)
    names = inodes["path"].astype(object).where(inodes["path"].notna(), numbered)
    return names.set_axis(pd.Index(integers(inodes["inode_id"])))


def comms(trace: TraceTables, frame: pd.DataFrame) -> pd.Categorical:
    """Return for each row of a table with `tgid` the name of the process that had its tgid at its time."""
    time = times_ns(frame) if isinstance(frame.index, pd.DatetimeIndex) else np.full(len(frame), _FOREVER)
    position = trace.processes.positions_at(integers(frame["tgid"]), time)
    return pd.Categorical(trace.processes.comms(position))


def _looked_up(ids: pd.Series, names: pd.Series) -> pd.Categorical:
    """Return the name of each id, as a categorical: millions of rows may have few names."""
    categories = pd.Index(sorted({str(name) for name in names.dropna()}), dtype=object)
    code_of_name = categories.get_indexer(pd.Index(names.astype(object)))
    positions = pd.Index(integers(names.index.to_series())).get_indexer(pd.Index(integers(ids)))
    codes = np.append(code_of_name, -1)[positions]
    return pd.Categorical.from_codes(codes, categories=categories)
