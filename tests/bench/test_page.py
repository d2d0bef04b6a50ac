from __future__ import annotations

import re

import pytest
from bench.page import JSON, PAGE, TABLES, written
from bench.results import Figure, Results, Slowdown

HOW = "`PYTHONPATH=tests .venv/bin/python -m bench.page` writes it again"


def test_page_of_costs_equals_the_one_made_from_the_json() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written(page, Results.read(JSON)), HOW


def test_page_of_costs_has_every_table() -> None:
    assert sorted(re.findall(r"<!-- bench: (\w+) -->", PAGE.read_text("utf-8"))) == sorted(TABLES)


def test_written_replaces_the_table_and_keeps_the_text() -> None:
    results = Results(
        slowdowns=[
            Slowdown("faults", "fault", "page faults", "record", [1.0, 3.0, 2.0], [5.0, 5.0, 5.0], at_most=3),
            Slowdown("faults", "fault", "page faults", "nothing", [0.0, 0.1, 0.2], [5.0, 5.0, 5.0]),
        ],
        figures=[Figure("kills", "explain, a kill", "this checkout", "ms", [19.5])],
    )
    page = (
        "above\n<!-- bench: slowdowns -->\nold\n<!-- end -->\nbetween\n<!-- bench: kills -->\n<!-- end -->\n"
    )
    assert written(page, results) == (
        "above\n<!-- bench: slowdowns -->\n"
        "| processor time of the work | `record` | nothing | aim |\n"
        "| --- | --- | --- | --- |\n"
        "| page faults | 2.00 % (1.00 to 3.00) | 0.10 % (0.00 to 0.20) | 3 % |\n"
        "<!-- end -->\nbetween\n<!-- bench: kills -->\n"
        "|  | of | measured | aim |\n"
        "| --- | --- | --- | --- |\n"
        "| explain, a kill | this checkout | 19.5 ms |  |\n"
        "<!-- end -->\n"
    )


def test_written_refuses_a_table_that_it_does_not_know() -> None:
    with pytest.raises(KeyError, match="other"):
        written("<!-- bench: other -->\n<!-- end -->\n", Results())


def test_run_says_what_it_was_measured_on_and_what_was_left_out() -> None:
    machine = {"commit": "abc1234", "date": "2026-01-02 03:04", "cpus": 2, "kernel": "6.18", "rounds": 3}
    loads = {"load_before": 0.5, "load_during": {"faults": 1.0, "write": 12.0}}
    about = machine | loads | {"cgroup_version": 1, "scale": 0.25}
    page = written("<!-- bench: run -->\n<!-- end -->\n", Results(about, left_out=["pgbench: not installed"]))
    assert page.splitlines() == [
        "<!-- bench: run -->",
        "Measured at commit abc1234, 2026-01-02 03:04 (UTC): 2 CPUs, kernel 6.18, cgroup v1; "
        "3 rounds of 0.25 times the work; "
        "load average 0.50 before, 1.00 to 12.0 during the run, of which the work itself is a part.",
        "",
        "Left out: pgbench: not installed.",
        "<!-- end -->",
    ]
