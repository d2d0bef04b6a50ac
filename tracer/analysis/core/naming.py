"""From what a person types to cgroup ids, and from ids to the names that the trace holds.

A cgroup's id is the inode number of its directory, so two cgroups that had one path after the other are two:
two lives of one name (`analysis.core.lives`).
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, times_ns
from tracer.analysis.core.lives import Life, Lives, containers, made_ns
from tracer.analysis.core.tables import TraceTables
from tracer.errors import TracerError, UsageError
from tracer.stored_names import stored_text

_MOST_LISTED: Final = 8
_LEAST_ID_PREFIX: Final = 4
_FOREVER: Final = np.iinfo(np.int64).max
_MOUNTS: Final = ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")


def resolve(cgroups: pd.DataFrame, pattern: str | int) -> list[int]:
    """The ids that `pattern` means, in the order of the table.

    Tried in this order, and the first kind that fits anything wins: an id; a path below the memory
    controller's mount (or with the usual mount points before it); a container's name; the beginning of a
    container's id; the end of a path, whole names only; a glob over paths and container names.

    It is taken first as a name as the kernel has it, then as the text that a trace has for one.

    Raises TracerError with the nearest names when nothing fits.
    """
    ids, paths = integers(cgroups["cgroup_id"]).tolist(), cgroups["path"].astype(str).tolist()
    places = [
        Place(number, path, container.name, container.container_id)
        for number, path, container in zip(ids, paths, containers(cgroups), strict=True)
    ]
    found = fitting(places, str(pattern))
    if not found:
        text = str(pattern).strip()
        raise TracerError(f"no cgroup in this trace fits {text!r}; {_candidates(cgroups, text)}")
    return [ids[position] for position in found]


class Place(NamedTuple):
    """A cgroup by all that a person may call it."""

    number: int
    path: str
    container: str | None
    container_id: str | None


def fitting(places: Sequence[Place], pattern: str) -> list[int]:
    """The positions of those that `pattern` means, as `resolve` says."""
    text = pattern.strip()
    spellings = dict.fromkeys((stored_text(text), text))
    return next((found for spelling in spellings if (found := _spelt(places, spelling))), [])


def _spelt(places: Sequence[Place], text: str) -> list[int]:
    whole_paths = _as_paths(text)
    ending = "/" + text.strip("/")
    kinds: tuple[Callable[[int, str, str | None, str | None], bool], ...] = (
        lambda number, _path, _name, _id: text == str(number),
        lambda _number, path, _name, _id: path in whole_paths,
        lambda _number, _path, name, _id: name == text,
        lambda _number, _path, _name, id_: (
            len(text) >= _LEAST_ID_PREFIX and id_ is not None and id_.startswith(text)
        ),
        lambda _number, path, _name, _id: path.endswith(ending),
        lambda _number, path, name, _id: (
            fnmatch.fnmatchcase(path, text) or (name is not None and fnmatch.fnmatchcase(name, text))
        ),
    )
    for fits in kinds:
        found = [position for position, place in enumerate(places) if fits(*place)]
        if found:
            return found
    return []


def select(trace: TraceTables, pattern: str | int, run: int | None = None) -> list[int]:
    """The ids that a verb shows for `pattern`, each with all below it: every life of every name that fits, as
    `Lives.in_order` has them, without those that lie below another one. `run`: only that life.

    Raises TracerError with the nearest names when nothing fits, UsageError when `run` does not name one life.
    """
    found = resolve(trace.cgroups, pattern)
    above = positions_above(trace.cgroups, found)
    lives = trace.places.lives
    ids = lives.in_order([number for number in found if len(above.get(number, ())) <= 1])
    return ids if run is None else [_of_run(lives.by_name(ids), run)]


def of_run(trace: TraceTables, run: int) -> int:
    """Return the id of that life of the only name with several; UsageError where there is no such name."""
    of_name = trace.places.lives.by_name(with_data(trace))
    restarted = [lives for lives in of_name if lives[0].runs > 1]
    if not restarted:
        raise UsageError("--run chooses a life of a name, and every name in this trace has one: leave it out")
    if len(restarted) > 1:
        listed = ", ".join(repr(lives[0].name) for lives in restarted[:_MOST_LISTED])
        raise UsageError(f"--run counts the lives of one name: name it with -c; several have lives: {listed}")
    return _of_run(restarted, run)


def _of_run(of_name: Sequence[Sequence[Life]], run: int) -> int:
    if len(of_name) > 1:
        listed = ", ".join(repr(lives[0].name) for lives in of_name[:_MOST_LISTED])
        more = f" and {len(of_name) - _MOST_LISTED} more" if len(of_name) > _MOST_LISTED else ""
        raise UsageError(f"--run counts the lives of one name, and {len(of_name)} fit: {listed}{more}")
    (lives,) = of_name
    for life in lives:
        if life.run == run:
            return life.cgroup_id
    runs = ", ".join(str(life.run) for life in lives[:_MOST_LISTED])
    more = f" to {lives[-1].run}" if len(lives) > _MOST_LISTED else ""
    raise UsageError(f"{lives[0].name!r} has no run {run} in this trace: it has {runs}{more}")


def labels_of(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> list[str]:
    """The path of each, or `id:N` where the trace holds no path."""
    paths = _paths(cgroups)
    return [paths.get(number) or f"id:{number}" for number in cgroup_ids]


def positions_above(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, list[int]]:
    """For each cgroup that is one of these or below one: the positions of those it counts for, in its own
    position first. As `Places.descendants` has it, for many."""
    paths, lives = _paths(cgroups), Lives(cgroups)
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
            parent = None if parents is None else lives.under(path[:end], made[number])
            if parents is not None and parent in parents:
                above.setdefault(number, []).append(parents[parent])
    return {number: positions for number, positions in above.items() if positions}


def descendants_of(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, Int64s]:
    """`Places.descendants` of each of them, in one pass for all."""
    below: list[list[int]] = [[] for _ in cgroup_ids]
    for number, positions in sorted(positions_above(cgroups, cgroup_ids).items()):
        for position in positions:
            below[position].append(number)
    return {number: np.array(ids, np.int64) for number, ids in zip(cgroup_ids, below, strict=True)}


def members_of(trace: TraceTables, cgroup_ids: Sequence[int]) -> Int64s:
    """The ids of these cgroups and of all below any of them, ascending."""
    return np.unique(np.concatenate([trace.places.descendants(number) for number in cgroup_ids]))


def with_data(trace: TraceTables) -> list[int]:
    """The ids of the cgroups that the trace has charges or samples of, by path, and then by run."""
    ids = np.union1d(integers(trace.charge["cgroup_id"]), integers(trace.samples["cgroup_id"])).tolist()
    runs = [trace.places.lives.of(number).run for number in ids]
    return [number for *_, number in sorted(zip(labels_of(trace.cgroups, ids), runs, ids, strict=True))]


def with_names(trace: TraceTables, frame: pd.DataFrame) -> pd.DataFrame:
    """A table with the names behind its ids added: `cgroup` (path), `container`, `comm`, `file` (path, or
    `major:minor inode N` where the kernel knew no name). Null where the trace holds no name.

    A `comm` that the table already has is left alone.
    """
    named = frame.copy()
    cgroups = trace.cgroups.set_index("cgroup_id")
    if "cgroup_id" in frame.columns:
        named["cgroup"] = _looked_up(frame["cgroup_id"], cgroups["path"])
        named["container"] = _looked_up(frame["cgroup_id"], cgroups["container"])
    if "tgid" in frame.columns and "comm" not in frame.columns:
        named["comm"] = _comms(trace.tasks, frame)
    if "inode_id" in frame.columns:
        named["file"] = _looked_up(frame["inode_id"], _file_names(trace.inodes))
    return named


def _paths(cgroups: pd.DataFrame) -> dict[int, str]:
    """Id -> path."""
    ids = integers(cgroups["cgroup_id"]).tolist()
    return dict(zip(ids, cgroups["path"].astype(str).tolist(), strict=True))


def _as_paths(text: str) -> set[str]:
    trimmed = "/" + text.strip("/")
    mounts = [mount for mount in _MOUNTS if (trimmed + "/").startswith(mount + "/")]
    return {trimmed} | {trimmed.removeprefix(mount) or "/" for mount in mounts}


def _candidates(cgroups: pd.DataFrame, text: str) -> str:
    paths = sorted(set(cgroups["path"].astype(str)))
    names = sorted({str(name) for name in cgroups["container"].dropna()})
    if not paths:
        return "it names no cgroups at all"
    return "it has " + nearest(names + paths, text)


def nearest(names: Sequence[str], text: str) -> str:
    """The names that come nearest to what was typed, and how many more there are."""
    near = [name for name in names if text.strip("/").casefold() in name.casefold()] or _nearest(names, text)
    listed = near[:_MOST_LISTED]
    more = f" (and {len(names) - len(listed)} more)" if len(listed) < len(names) else ""
    return ", ".join(map(repr, listed)) + more


def _nearest(names: Sequence[str], text: str) -> list[str]:
    return difflib.get_close_matches(text, names, n=_MOST_LISTED, cutoff=0.3) or list(names[:_MOST_LISTED])


def _file_names(inodes: pd.DataFrame) -> pd.Series:
    numbered = inodes["dev"].astype(str) + " inode " + inodes["ino"].astype(str)
    names = inodes["path"].astype(object).where(inodes["path"].notna(), numbered)
    return names.set_axis(pd.Index(integers(inodes["inode_id"])))


def _comms(tasks: pd.DataFrame, frame: pd.DataFrame) -> pd.Categorical:
    """The name of the process with the row's tgid that was seen first at or before the row's time; else of
    the first one after it, since who acts is named after the deed, and a wait's row stands at its begin.
    """
    time = times_ns(frame) if isinstance(frame.index, pd.DatetimeIndex) else np.full(len(frame), _FOREVER)
    rows = pd.DataFrame({"tgid": integers(frame["tgid"]), "time": time, "row": np.arange(len(frame))})
    seen = pd.DataFrame(
        {
            "tgid": integers(tasks["tgid"]),
            "time": column_times_ns(tasks["first_seen"]),
            "comm": tasks["comm"].astype(object).to_numpy(),
        }
    )
    rows, seen = rows.sort_values("time"), seen.sort_values("time")
    before, after = (
        pd.merge_asof(rows, seen, on="time", by="tgid", direction=direction)["comm"]
        for direction in ("backward", "forward")
    )
    return pd.Categorical(before.fillna(after).iloc[np.argsort(rows["row"])].to_numpy(dtype=object))


def _looked_up(ids: pd.Series, names: pd.Series) -> pd.Categorical:
    """Names by id, as a categorical: the frame may have millions of rows and few names."""
    categories = pd.Index(sorted({str(name) for name in names.dropna()}), dtype=object)
    code_of_name = categories.get_indexer(pd.Index(names.astype(object)))
    positions = pd.Index(integers(names.index.to_series())).get_indexer(pd.Index(integers(ids)))
    codes = np.append(code_of_name, -1)[positions]
    return pd.Categorical.from_codes(codes, categories=categories)
