"""The text of a fleet: widths, limits of rows, hostile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from support import golden

from tracer.fleet.reduction.fleet_answer import Evictor, Fleet, Host, KillCount, SigkillCount
from tracer.fleet.reduction.partial_state import Broken
from tracer.render.fleet import fleet_text
from tracer.render.terminal import console

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31m[red]<script>\nx\udc80\u202e" + "y" * 200


def text(fleet: Fleet, columns: int) -> str:
    return console.to_text(fleet_text.lines(fleet, columns), columns=columns, colour=False)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_text_is_that_of_the_golden_file(fleet: Fleet, columns: int, request: pytest.FixtureRequest) -> None:
    golden.compare(GOLDEN / f"fleet-{columns}.txt", text(fleet, columns), request.node.nodeid)


def test_text_without_a_kill_says_so(quiet: Fleet) -> None:
    first, *_ = text(quiet, 100).splitlines()
    assert first == "There is no kill in 1 trace of 1 host."


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_name_gets_through(fleet: Fleet, columns: int) -> None:
    hostile = replace(
        fleet,
        broken=[Broken(HOSTILE, HOSTILE)],
        hosts=[replace(fleet.hosts[2], host=HOSTILE)],
        kills=[replace(fleet.kills[0], workload=HOSTILE, host=HOSTILE), fleet.kills[1]],
        workloads=[replace(one, workload=HOSTILE) for one in fleet.workloads],
        sigkills=[SigkillCount(HOSTILE, HOSTILE, HOSTILE, 3, fleet.kills[0].first, fleet.kills[0].last)],
        evictors=[replace(fleet.evictors[0], owner_workload=HOSTILE, evictor_workload=HOSTILE[::-1])],
    )
    shown = text(hostile, columns)
    assert [line for line in shown.splitlines() if cell_len(line) > columns] == []
    assert not set(shown) & {"\x1b", "\udc80", "\u202e", "\r"}
    assert "\\x1b[31m[red]<script>" in shown.replace("\n  ", "")


def test_rows_that_are_left_out_are_counted(fleet: Fleet) -> None:
    many = replace(
        fleet,
        hosts=[Host(f"node-{number}", 1, 0, 0, 0, 1, 1) for number in range(40)],
        kills=[KillCount("shmem", f"job-{n}", "node-1", 1, fleet.begin, fleet.end) for n in range(1016)],  # type: ignore[arg-type]
        evictors=[Evictor(f"a{n}", "b", "reclaim_memcg", 1, n, n) for n in range(17)],
    )
    shown = text(many, 100)
    assert "1,001 more rows: --json has them all, --report the first 500." in shown
    for left_out in ("25 more rows", "2 more rows"):
        assert f"{left_out}: --json and --report have them all." in shown


def test_limits_that_are_not_known_to_be_wrong_are_only_counted(fleet: Fleet) -> None:
    _, listed = text(fleet, 100).split("\nLimits\n")
    table, *_ = listed.split("\n\n")
    assert [line.split()[-1] for line in table.splitlines()[1:4]] == ["shop/web/app", "postgres", "batch"]


def test_rules_of_others_are_not_shown_if_only_the_least_need_is_known(fleet: Fleet) -> None:
    killed = [one for one in fleet.workloads if one.workload == "postgres"]
    shown = text(replace(fleet, workloads=killed), 100)
    assert "more than" in shown
    assert "VPA" not in shown and "KRR" not in shown


def test_evictions_of_a_workload_by_itself_alone_are_said(fleet: Fleet) -> None:
    own = [one for one in fleet.evictors if one.owner_workload == one.evictor_workload]
    shown = text(replace(fleet, evictors=own), 100)
    assert "900 MiB was evicted, all by tasks of the workload that it was charged to." in shown


def test_text_says_what_is_not_known(fleet: Fleet) -> None:
    shown = " ".join(text(fleet, 100).split())
    assert "1,204 records on 1 host" in shown
    assert "2 traces, of which it is not known what was lost" in shown
    assert "more than one machine is called localhost (at least 2)" in shown
    assert "/srv/traces/node-3/x: meta.json is not JSON" in shown
