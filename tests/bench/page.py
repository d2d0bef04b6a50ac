"""The tables of docs/cost.md, made from docs/cost.json: `python -m bench.page` writes them.

A table stands between the lines `<!-- bench: NAME -->` and `<!-- end -->`. The text around it is written by
hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.results import Figure, Results, number, spread
from bench.tables import aim
from bench.works import MEMORY

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "cost.md"
JSON: Final = DOCS / "cost.json"
PROGRAMS_SHOWN: Final = 3
COMPARED: Final = ("perf record", "empty programs", "nothing")


def written(page: str, results: Results) -> str:
    """Return the page with its tables made from the results. Raises KeyError for a table of another name."""
    return re.sub(
        r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{TABLES[found[2]](results)}{found[3]}",
        page,
        flags=re.DOTALL,
    )


def _run(results: Results) -> str:
    """Return a sentence on the run that the figures are of."""
    machine = results.machine
    loads = sorted(machine["load_during"].values())
    work = "" if machine["scale"] == 1 else f" of {machine['scale']:g} times the work"
    where = f"{machine['cpus']} CPUs, kernel {machine['kernel']}, cgroup v{machine['cgroup_version']}"
    left_out = "".join(f"\nLeft out: {reason}.\n" for reason in results.left_out)
    before, least, most = (number(load) for load in (machine["load_before"], loads[0], loads[-1]))
    return (
        f"Measured at commit {machine['commit']}, {machine['date']} (UTC): {where}; "
        f"{machine['rounds']} rounds{work}; load average {before} before, {least} to {most} during the run, "
        f"of which the work itself is a part.\n{left_out}"
    )


def _slowdowns(results: Results) -> str:
    """Return a row for each work, with processor time by each tracer."""
    tracers = _tracers(results)
    return _table(
        ("processor time of the work", *map(_tracer, tracers), "aim"),
        _rows(results, tracers, is_of_wall=False),
    )


def _wall(results: Results) -> str:
    """Return a row for each work, with wall time by each tracer."""
    tracers = _tracers(results)
    return _table(("wall time of the work", *map(_tracer, tracers)), _rows(results, tracers, is_of_wall=True))


def _tracers(results: Results) -> list[str]:
    """Return the tracers in the order of their columns: ours, then what they are compared with."""
    found = dict.fromkeys(one.by for one in results.slowdowns if one.work != "stacks")
    return sorted(found, key=lambda name: COMPARED.index(name) if name in COMPARED else -1)


def _rows(results: Results, tracers: Sequence[str], *, is_of_wall: bool) -> Iterator[list[str]]:
    phases: dict[str, dict[str, str]] = {}
    aims: dict[str, str] = {}
    for one in results.slowdowns:
        if one.work == "stacks":
            continue
        values = one.wall_percent if is_of_wall else one.processor_percent
        phases.setdefault(one.what, {})[one.by] = spread(values, "%")
        aims.setdefault(one.what, "")
        if one.at_most is not None:
            aims[one.what] = aim(values, one.at_most, "%")
    for what, cells in phases.items():
        yield [what, *(cells.get(tracer, "") for tracer in tracers), *([] if is_of_wall else [aims[what]])]


def _stacks(results: Results) -> str:
    slowdowns = [one for one in results.slowdowns if one.work == "stacks"]
    if not slowdowns:
        return "This run did not measure it."
    return _table(
        ("4-KiB page faults", "processor time"),
        ([_tracer(one.by), spread(one.processor_percent, "%")] for one in slowdowns),
    )


def _figures(*works: str) -> Callable[[Results], str]:
    def table(results: Results) -> str:
        of_works = (one for one in results.figures if one.work in works)
        figures = [one for one in of_works if not one.what.startswith(MEMORY)]
        return _table(("", "of", "measured", "aim"), map(_figure, figures))

    return table


def _figure(one: Figure) -> list[str]:
    return [one.what, _tracer(one.by), spread(one.values, one.unit), aim(one.values, one.at_most, one.unit)]


def _memory(results: Results) -> str:
    """Return the greatest of the medians of memory, for each command."""
    most: dict[str, Figure] = {}
    for one in results.figures:
        if one.what.startswith(MEMORY) and median(one.values) >= (
            median(most[one.by].values) if one.by in most else 0
        ):
            most[one.by] = one
    return _table(("the most of all works", "of", "measured", "aim"), map(_figure, most.values()))


def _programs(results: Results) -> str:
    """Return the programs that took most time in each work of each tracer."""
    rows, shown = [], dict[tuple[str, str], int]()
    for one in results.programs:
        key = one.work, one.by
        shown[key] = shown.get(key, 0) + 1
        if shown[key] <= PROGRAMS_SHOWN:
            spent_ms = one.runs * one.mean_ns / 1e6
            cells = [one.work, _tracer(one.by), f"`{one.program}`", f"{one.runs:,}"]
            rows.append([*cells, number(one.mean_ns), number(spent_ms)])
    return _table(("work", "of", "program", "runs", "ns a run", "ms"), rows)


TABLES: Final[Mapping[str, Callable[[Results], str]]] = {
    "run": _run,
    "slowdowns": _slowdowns,
    "wall": _wall,
    "events": _figures("write", "random", "lost"),
    "recorder": _figures("start", "idle"),
    "watch": _figures("watch", "top"),
    "memory": _memory,
    "reading": _figures("reading", "example", "export"),
    "kills": _figures("kills"),
    "stacks": _stacks,
    "programs": _programs,
}


def _tracer(name: str) -> str:
    return name if name in ("nothing", "empty programs", "this checkout") else f"`{name}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8"), Results.read(JSON)), "utf-8")
