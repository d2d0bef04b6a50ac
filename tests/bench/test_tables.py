from __future__ import annotations

from bench.results import Figure, Program, Results, Slowdown
from bench.tables import FEW, tables

from tracer.render.terminal.console import to_text

COLUMNS = 100


def shown(results: Results) -> list[str]:
    return to_text(tables(results), columns=COLUMNS, colour=False).splitlines()


def test_tables_say_which_aim_was_missed() -> None:
    met = Slowdown("faults", "fault", "page faults", "record", [1.0, 2.0, 50.0], [9.0, 9.0, 9.0], at_most=3)
    missed = Slowdown("write", "write", "write", "record", [9.0, 10.0, 11.0], [1.0, 1.0, 1.0], at_most=8)
    figure = Figure("lost", "lost records", "record", "records", [3.0], 0)
    lines = shown(Results(slowdowns=[met, missed], figures=[figure]))
    assert [line.endswith("MISSED") for line in lines if "record" in line] == [False, True, True]


def test_tables_fit_a_terminal_of_100_columns() -> None:
    values = [-123.456, 1234.5, 99.99]
    slowdowns = [
        Slowdown("pgbench", "pgbench", "pgbench -c4 at a limit, a transaction", by, values, values, 1.5, 1.5)
        for by in ("record", "perf record", "empty programs", "nothing")
    ]
    figures = [
        Figure(
            "idle", "own processor time for a million sequential events", "record", "% of a core", values, 2
        )
    ]
    lines = shown(Results(slowdowns=slowdowns, figures=figures, left_out=["kills: " + "why " * 40]))
    assert max(map(len, lines)) <= COLUMNS


def test_tables_show_the_dearest_programs_of_each_work() -> None:
    programs = [Program("faults", "record", f"program{n}", 10, 1000 - n) for n in range(FEW + 2)]
    text = "\n".join(shown(Results(programs=programs)))
    assert f"program{FEW - 1}" in text
    assert f"program{FEW}" not in text


def test_tables_name_what_was_left_out() -> None:
    assert shown(Results(left_out=["pgbench: PostgreSQL is not installed"])) == [
        "left out: pgbench: PostgreSQL is not installed"
    ]
