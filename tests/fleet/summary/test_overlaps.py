"""Overlapping traces: any way to cut one recording into traces gives the same kills and lives, and so do
several recorders at the same time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.costly import COSTLY

from tracer.fleet.summary.overlaps import CLOCKS_APART_AT_MOST_NS, chosen_stretches, conform, merged
from tracer.fleet.summary.summaries import SUMMARIES

SECOND: Final = 1_000_000_000
OFFSET: Final = 1_700_000_000 * SECOND
MINUTE: Final = 60
LENGTH: Final = 150

Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """What happened on a machine, in whole seconds: cgroup -> (made, removed), kills, and evictions."""

    lives: Mapping[int, tuple[int, int]]
    kills: Sequence[tuple[int, int, int]]  # (second, pid, cgroup)

    def evicted(self, cgroup: int, begin: int, end: int) -> int:
        """Return the bytes that were evicted from one second to another, both included."""
        made, removed = self.lives[cgroup]
        seconds = range(max(begin, made), min(end, removed) + 1)
        return sum((second * 13 + cgroup) % 5 for second in seconds)

    def usage(self, cgroup: int, second: int) -> int:
        return (second * 7919 + cgroup * 31) % 1000


def origin(name: str, second: int, boot: str | None = "boot") -> Row:
    return {
        "date": (OFFSET + second * SECOND) // 86_400_000_000_000,
        "host": "h",
        "boot_id": boot,
        "trace": name,
        "trace_id": name,
        "summary_version": 1,
        "time": OFFSET + second * SECOND,
    }


def recorded(
    world: World, name: str, begin: int, end: int, boot: str | None = "boot", *, late_ns: int = 0
) -> dict[str, list[Row]]:
    """Return the rows that a trace from one second to another, both included, would have. Each second in
    which a process was killed, SIGKILL ended another one.

    `late_ns`: how late the programs of its recorder read the clock at an event.
    """
    rows: dict[str, list[Row]] = {table: [] for table in SUMMARIES}
    rows["sources"].append({**origin(name, begin, boot), "end": OFFSET + end * SECOND})
    for second, pid, cgroup in world.kills:
        if begin <= second <= end:
            when = {"time": OFFSET + second * SECOND + late_ns, "ktime_ns": second * SECOND + late_ns}
            ended = {"pid": pid + 1, "start_ns": second * SECOND - 2, "workload": f"w{cgroup}"}
            rows["sigkills"].append({**origin(name, second, boot), **when, **ended})
            rows["kills"].append(
                {
                    **origin(name, second, boot),
                    **when,
                    "victim_pid": pid,
                    "victim_start_ns": second * SECOND - 1,
                    "cgroup_id": cgroup,
                    "workload": f"w{cgroup}",
                    "confidence": "high",
                    "lost_records": 0,
                }
            )
    for cgroup, (made, removed) in world.lives.items():
        first, last = max(made, begin), min(removed, end)
        if first > last:
            continue
        usage = [world.usage(cgroup, second) for second in range(first, last + 1)]
        names = {"cgroup": f"/{cgroup}", "cgroup_id": cgroup, "workload": f"w{cgroup}"}
        rows["lives"].append(
            {
                **origin(name, first, boot),
                "time": OFFSET + first * SECOND + late_ns,
                "end": OFFSET + last * SECOND + late_ns,
                "is_begin_seen": made >= begin,
                "is_end_seen": removed <= end,
                "made_ktime_ns": made * SECOND + late_ns if made >= begin else None,
                "first_ktime_ns": first * SECOND,
                "last_ktime_ns": last * SECOND,
                "observed_s": float(last - first),
                **names,
                "limit_bytes": 1000,
                "is_limited": True,
                "peak_usage_bytes": max(usage),
                "kills": sum(one == cgroup and first <= second <= last for second, _, one in world.kills),
                "evicted_bytes": world.evicted(cgroup, first, last),
            }
        )
        for minute in range(first // MINUTE, last // MINUTE + 1):
            since, until = max(minute * MINUTE, first), min(minute * MINUTE + MINUTE - 1, last)
            stretch = {
                **origin(name, minute * MINUTE, boot),
                "ktime_ns": minute * MINUTE * SECOND,
                "first_ktime_ns": since * SECOND,
                "last_ktime_ns": until * SECOND,
            }
            evicted = world.evicted(cgroup, since, until)
            most = max(world.usage(cgroup, second) for second in range(since, until + 1))
            rows["timeline"].append({**stretch, **names, "max_usage_bytes": most, "evicted_bytes": evicted})
            if evicted:
                rows["evictors"].append(
                    {**stretch, "owner_cgroup_id": cgroup, "cause": "reclaim_memcg", "evicted_bytes": evicted}
                )
    return rows


def joined(*parts: dict[str, list[Row]]) -> dict[str, pa.Table]:
    return {
        table: conform(
            pa.Table.from_pylist([row for part in parts for row in part[table]], loose(table)), table
        )
        for table in SUMMARIES
    }


def loose(table: str) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in SUMMARIES[table]])


def facts(tables: Mapping[str, pa.Table]) -> dict[str, list[Row]]:
    """Return what does not depend on the traces that a recording was cut into, in order."""
    dropped = {
        "kills": ("trace", "trace_id"),
        "sigkills": ("trace", "trace_id"),
        "lives": ("trace", "trace_id", "evicted_bytes", "refaulted_bytes"),
    }
    return {
        table: sorted(
            (
                {name: value for name, value in row.items() if name not in names}
                for row in tables[table].to_pylist()
            ),
            key=str,
        )
        for table, names in dropped.items()
    }


@st.composite
def worlds(draw: st.DrawFn) -> World:
    lives = {}
    for cgroup in range(1, draw(st.integers(1, 3)) + 1):
        made = draw(st.integers(0, LENGTH - 2))
        lives[cgroup] = made, draw(st.integers(made + 1, LENGTH))
    kills = []
    for cgroup, (made, removed) in lives.items():
        moments = draw(st.lists(st.integers(made, removed), max_size=3, unique=True))
        # a pid may be used again
        kills += [(second, 100 * cgroup + 2 * (number % 2), cgroup) for number, second in enumerate(moments)]
    return World(lives, kills)


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Return intervals that overlap and together cover everything."""
    edges = sorted(draw(st.sets(st.integers(1, LENGTH - 1), max_size=4)))
    begins, ends = [0, *edges], [*edges, LENGTH]
    wider = [
        (draw(st.integers(0, begin)), draw(st.integers(end, LENGTH)))
        for begin, end in zip(begins, ends, strict=True)
    ]
    return draw(st.permutations(wider))


@COSTLY
@given(worlds(), cuts())
def test_any_cut_into_overlapping_traces_gives_the_same_kills_and_lives(
    world: World, intervals: list[tuple[int, int]]
) -> None:
    parts = [recorded(world, f"t{number}", *one) for number, one in enumerate(intervals)]
    found, whole = merged(joined(*parts)), joined(recorded(world, "whole", 0, LENGTH))
    assert facts(found) == facts(whole)


def shifted(part: dict[str, list[Row]], later_ns: int) -> dict[str, list[Row]]:
    """Return the rows of a trace that a clone of the machine made, which did the same so much later.

    It was resumed from the same snapshot: boot id, pids, starts and ids of cgroups are the same.
    """
    times = ("time", "end", "ktime_ns", "made_ktime_ns", "first_ktime_ns", "last_ktime_ns")
    return {
        table: [
            {**row, **{name: row[name] + later_ns for name in times if row.get(name) is not None}}
            | {"trace_id": f"{row['trace_id']}+{later_ns}"}
            for row in rows
        ]
        for table, rows in part.items()
    }


def without_starts(part: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the rows of kills and SIGKILLs as an older version wrote them."""
    starts = {"kills": "victim_start_ns", "sigkills": "start_ns"}
    return {
        table: [{**row, starts[table]: None} for row in rows] if table in starts else []
        for table, rows in part.items()
    }


def both(part: dict[str, list[Row]], other: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {table: [*rows, *other[table]] for table, rows in part.items()}


@COSTLY
@given(
    worlds(),
    cuts(),
    st.lists(
        st.integers(0, CLOCKS_APART_AT_MOST_NS // 1000).map(lambda late_us: late_us * 1000),
        min_size=5, max_size=5,
    ),
    st.none() | st.integers(5, LENGTH).map(lambda later_s: later_s * SECOND + 1),
    st.data(),
)  # fmt: skip
def test_recorders_at_the_same_time_give_the_same_kills_and_lives(
    world: World,
    intervals: list[tuple[int, int]],
    late_ns: list[int],
    clone_ns: int | None,
    data: st.DataObject,
) -> None:
    """However late each of them reads the clock, and in whichever order their traces are merged. Some of the
    rows are there a second time, from an older version, and the machine may have a clone."""
    recorders = zip(intervals, late_ns, strict=False)
    parts = [
        recorded(world, f"t{number}", *one, late_ns=late)
        for number, (one, late) in enumerate([*recorders, ((0, LENGTH), late_ns[0])])
    ]
    if clone_ns is not None:
        parts += [shifted(part, clone_ns) for part in parts]
    for number in data.draw(st.sets(st.integers(0, len(parts) - 1))):
        parts[number] = both(without_starts(parts[number]), parts[number])
    machines = 1 if clone_ns is None else 2
    whole = joined(recorded(world, "whole", 0, LENGTH))
    cut = data.draw(st.integers(0, len(parts)))
    halves = [merged(joined(*some)) for some in (parts[:cut], parts[cut:])]
    tables = {name: pa.concat_tables([half[name] for half in halves]) for name in SUMMARIES}
    for found in (merged(joined(*parts)), merged(tables)):
        for table, key in (("kills", "victim_start_ns"), ("sigkills", "start_ns"), ("lives", "cgroup_id")):
            assert sorted(found[table][key].to_pylist(), key=str) == sorted(
                whole[table][key].to_pylist() * machines, key=str
            )
        if machines == 1:
            assert kills_of_lives(found) == kills_of_lives(whole)


def kills_of_lives(tables: Mapping[str, pa.Table]) -> dict[int, int]:
    return {row["cgroup_id"]: row["kills"] for row in tables["lives"].to_pylist()}


@COSTLY
@given(worlds(), cuts())
def test_sums_of_overlapping_traces_count_nothing_twice(
    world: World, intervals: list[tuple[int, int]]
) -> None:
    parts = [recorded(world, f"t{number}", *one) for number, one in enumerate(intervals)]
    found = merged(joined(*parts))
    for table, key in (("timeline", "cgroup_id"), ("evictors", "owner_cgroup_id")):
        sums: dict[tuple[int, int], int] = {}
        for row in found[table].to_pylist():
            place = row[key], row["ktime_ns"] // SECOND
            sums[place] = sums.get(place, 0) + row["evicted_bytes"]
        for (cgroup, second), evicted in sums.items():
            there = world.evicted(cgroup, second, second + MINUTE - 1)
            covered = any(
                begin <= max(second, world.lives[cgroup][0])
                and min(second + MINUTE - 1, world.lives[cgroup][1]) <= end
                for begin, end in intervals
            )
            assert evicted <= there
            assert not covered or evicted == there
    for row in found["lives"].to_pylist():
        assert row["evicted_bytes"] <= world.evicted(row["cgroup_id"], 0, LENGTH)


@COSTLY
@given(worlds(), cuts())
def test_merging_again_and_copies_of_traces_change_nothing(
    world: World, intervals: list[tuple[int, int]]
) -> None:
    parts = [recorded(world, f"t{number}", *one) for number, one in enumerate(intervals)]
    once = merged(joined(*parts))
    for other in (merged(once), merged(joined(*parts, *parts))):
        for table in SUMMARIES:
            assert sorted(map(str, other[table].to_pylist())) == sorted(map(str, once[table].to_pylist()))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=6))
def test_chosen_stretches_do_not_overlap_and_last_longest(spans: list[tuple[int, int]]) -> None:
    stretches = [(begin, begin + length, str(number)) for number, (begin, length) in enumerate(spans)]

    def is_apart(some: Sequence[int]) -> bool:
        return all(
            stretches[one][1] < stretches[other][0] or stretches[other][1] < stretches[one][0]
            for one, other in combinations(some, 2)
        )

    def length(some: Sequence[int]) -> int:
        return sum(stretches[one][1] - stretches[one][0] + 1 for one in some)

    chosen = chosen_stretches(stretches)
    assert is_apart(chosen)
    best = max(
        length(some)
        for count in range(len(stretches) + 1)
        for some in combinations(range(len(stretches)), count)
        if is_apart(some)
    )
    assert length(chosen) == best


def test_choice_of_many_stretches_takes_little_memory() -> None:
    stretches = [(number, number, "") for number in range(5_000)]
    tracemalloc.start()
    try:
        chosen = chosen_stretches(stretches)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert chosen == [*range(5_000)]
    assert most_bytes < 5 << 20  # a list of all earlier ones for each would take 100 MB


WORLD: Final = World({1: (0, LENGTH)}, [(10, 100, 1)])


def test_machines_and_traces_without_boot_id_do_not_overlap() -> None:
    parts = [
        recorded(WORLD, name, 0, LENGTH, boot)
        for name, boot in (("a", "x"), ("b", "y"), ("c", None), ("d", None))
    ]
    found = merged(joined(*parts))
    assert [found[table].num_rows for table in ("sources", "kills", "lives")] == [4, 4, 4]
    assert found["timeline"].num_rows == 4 * (LENGTH // MINUTE + 1)


def test_kill_has_the_row_of_the_best_quality() -> None:
    parts = [recorded(WORLD, name, 0, LENGTH) for name in "abcd"]
    parts[0]["kills"][0] |= {"confidence": "medium"}
    parts[1]["kills"][0] |= {"lost_records": 4}
    parts[3]["kills"][0] |= {"grown_function": "load"}
    (kill,) = merged(joined(*parts))["kills"].to_pylist()
    assert kill["trace_id"] == "d"


@pytest.mark.parametrize(("late_s", "kills"), [(1.9, 1), (2.1, 2)])
def test_kill_of_the_log_alone_is_the_recorded_one_of_its_pid_and_time(late_s: float, kills: int) -> None:
    parts = [recorded(WORLD, name, 0, LENGTH) for name in "ab"]
    logged = parts[1]["kills"][0]
    logged |= {"ktime_ns": None, "time": logged["time"] + int(late_s * SECOND), "kmsg": "only"}
    for order in (parts, parts[::-1]):
        assert merged(joined(*order))["kills"].num_rows == kills


@pytest.mark.parametrize(("late_ns", "times"), [(0, 1), (11_000, 2)])
def test_row_without_a_start_is_the_recorded_one_of_its_pid_and_clock(late_ns: int, times: int) -> None:
    """Rows of older versions: only traces of one recorder have the same time of an event."""
    parts = [recorded(WORLD, name, 0, LENGTH, late_ns=late) for name, late in (("a", 0), ("b", late_ns))]
    parts[1]["kills"][0]["victim_start_ns"] = parts[1]["sigkills"][0]["start_ns"] = None
    for order in (parts, parts[::-1]):
        found = merged(joined(*order))
        assert [found[table].num_rows for table in ("kills", "sigkills", "lives")] == [times, times, 1]


def test_kill_whose_best_row_lacks_the_start_has_the_start_of_another_row() -> None:
    """So it is recognised in the trace of a further recorder that is merged later."""
    newer, other = (recorded(WORLD, name, 0, LENGTH, late_ns=late) for name, late in (("a", 0), ("b", 9000)))
    older = without_starts(newer)
    newer["kills"][0] |= {"lost_records": 4}
    newer["sigkills"][0] |= {"workload": "?"}
    for order in ((newer, older), (older, newer)):
        first = merged(joined(*order))
        (kill,), (sigkill,) = (first[table].to_pylist() for table in ("kills", "sigkills"))
        assert (kill["lost_records"], kill["victim_start_ns"]) == (0, 10 * SECOND - 1)
        assert (sigkill["workload"], sigkill["start_ns"]) == ("w1", 10 * SECOND - 2)
        second = joined(other)
        found = merged({table: pa.concat_tables([first[table], second[table]]) for table in SUMMARIES})
        assert [found[table].num_rows for table in ("kills", "sigkills")] == [1, 1]


@pytest.mark.parametrize(("apart_s", "machines"), [(1.9, 1), (2.1, 2)])
def test_clones_of_a_machine_are_recognised_by_the_time(apart_s: float, machines: int) -> None:
    """Each recorder of a machine reads the clock at one event within two seconds."""
    part = recorded(WORLD, "a", 0, LENGTH)
    parts = [part, shifted(part, int(apart_s * SECOND))]
    for order in (parts, parts[::-1]):
        found = merged(joined(*order))
        assert [found[table].num_rows for table in ("kills", "sigkills", "lives")] == [machines] * 3


def test_cgroup_id_that_was_used_again_is_another_life() -> None:
    """A hierarchy of cgroup v1 that is mounted again begins again with its ids."""
    worlds = [World({1: span}, []) for span in ((0, 50), (60, 100))]
    parts = [
        recorded(worlds[0], "a", 0, 40),
        recorded(worlds[0], "b", 20, 55),
        recorded(worlds[1], "c", 57, 80),
        recorded(worlds[1], "d", 70, LENGTH),
    ]
    for some, expected in ((parts, [(0, 50), (60, 100)]), (parts[1:], [(20, 50), (60, 100)])):
        for order in (some, some[::-1]):
            lives = merged(joined(*order))["lives"].to_pylist()
            spans = [(row["first_ktime_ns"] // SECOND, row["last_ktime_ns"] // SECOND) for row in lives]
            assert sorted(spans) == expected


def test_life_that_a_trace_did_not_see_begin_is_the_one_that_began_in_it() -> None:
    """A trace of other cgroups does not know when a cgroup above them was made."""
    world = World({1: (20, 100)}, [])
    of_all, of_others = (recorded(world, name, 0, LENGTH) for name in "ab")
    of_others["lives"][0] |= {"made_ktime_ns": None, "first_ktime_ns": 0, "is_begin_seen": False}
    for order in ((of_all, of_others), (of_others, of_all)):
        assert merged(joined(*order))["lives"].num_rows == 1


def test_names_of_a_life_are_the_latest_known_ones() -> None:
    parts = [recorded(WORLD, name, *span) for name, span in (("a", (0, 50)), ("b", (40, 90)))]
    parts[0]["lives"][0] |= {"container": "web", "limit_bytes": 5}
    parts[1]["lives"][0] |= {"workload": "?", "cgroup": "id:1", "limit_bytes": 7}
    (life,) = merged(joined(*parts))["lives"].to_pylist()
    assert (life["workload"], life["cgroup"], life["container"]) == ("w1", "/1", "web")


def test_older_and_newer_columns_are_null_and_left_out() -> None:
    table = pa.Table.from_pylist([{"host": "h", "victims": 2, "of_tomorrow": 1}])
    found = conform(table, "kills")
    assert found.column_names == SUMMARIES["kills"].names
    (row,) = found.to_pylist()
    assert (row["host"], row["victims"], row["cause"]) == ("h", 2, None)


def test_life_of_several_traces_has_the_worst_of_them_and_the_end_of_the_latest() -> None:
    parts = [
        recorded(WORLD, name, *ends) for name, ends in (("a", (0, 60)), ("b", (30, 90)), ("c", (80, 150)))
    ]
    seen: list[Row] = [
        {"state": "held", "work": "growing", "lost_share": 0.1, "peak_with_swap_bytes": 7},
        {"state": "thrashing", "work": "cut", "lost_share": 0.6, "peak_with_swap_bytes": 9},
        {"state": None, "work": None, "lost_share": None, "peak_with_swap_bytes": 8, "comfortable_bytes": 5},
    ]
    for part, columns in zip(parts, seen, strict=True):
        part["lives"][0] |= columns
    for several in (parts, parts[::-1]):
        (life,) = merged(joined(*several))["lives"].to_pylist()
        assert (life["state"], life["work"], life["lost_share"]) == ("thrashing", None, 0.6)
        assert (life["peak_with_swap_bytes"], life["comfortable_bytes"]) == (9, 5)
    (life,) = merged(joined(*parts[:1]))["lives"].to_pylist()
    assert (life["state"], life["work"]) == ("held", "growing")


@pytest.mark.parametrize("is_older_first", [False, True])
def test_life_has_what_a_row_of_an_older_version_lacks(is_older_first: bool) -> None:
    newer, older = (recorded(WORLD, "a", 0, 60) for _ in range(2))
    newer["lives"][0] |= {"state": "thrashing", "work": "complete", "lost_share": 0.6}
    both = [older, newer] if is_older_first else [newer, older]
    (life,) = merged(joined(*both))["lives"].to_pylist()
    assert (life["state"], life["work"], life["lost_share"]) == ("thrashing", "complete", 0.6)
