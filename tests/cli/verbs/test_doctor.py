from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from support.schemas import require_form

from tracer.capture.bpf.hooks import Choice
from tracer.capture.learn.event_cost import EventCost
from tracer.capture.trial import Examination, Finding
from tracer.cli.verbs import doctor
from tracer.kernel.features import Check, State
from tracer.kernel.probes import SIGNALS

FINE = Check("kernel", State.OK, "Linux 6.18.0, x86_64")
POOR = Check("PSI", State.DEGRADED, "of the whole machine only", "no stalls by cgroup", "boot with v2")
FATAL = Check(
    "BTF", State.MISSING, "no BTF", "nothing can be read", "boot another kernel", prevents_recording=True
)
HOSTILE = Check("lockdown", State.UNKNOWN, "a\x1b[31m[red]b\nc", "x" * 300, "y")


TAKEN = [Finding(one, Choice(one, one.ways[0]), EventCost(7, 1234.56)) for one in SIGNALS]
ABSENT = [Finding(one, Choice(one, None, "no \x1b[31m" + "x" * 200)) for one in SIGNALS]
UNTRIED = [Finding(one) for one in SIGNALS]


def run(
    monkeypatch: pytest.MonkeyPatch,
    checks: list[Check],
    *arguments: str,
    signals: list[Finding] | None = None,
) -> Result:
    """Run the command on a machine with these results of checks, and with these signals."""
    examined = Examination([], signals or [])
    monkeypatch.setattr("tracer.kernel.features.examine", lambda: list(checks))
    monkeypatch.setattr("tracer.capture.trial.examine", lambda *, may_load, measure: examined)
    return CliRunner().invoke(doctor.command, arguments)


def test_doctor_status_is_1_only_if_recording_is_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, POOR]).exit_code == 0
    result = run(monkeypatch, [FINE, FATAL, POOR])
    assert result.exit_code == 1
    assert "This machine cannot record, because of: BTF." in result.stdout


def test_missing_check_has_its_effect_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [FINE, POOR]).stdout
    assert "no stalls by cgroup" in text
    assert "boot with v2" in text


def test_doctor_quiet_prints_one_line_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, POOR], "--quiet").stdout == ""
    second = Check("permissions", State.MISSING, "none", "", "sudo", prevents_recording=True)
    assert run(monkeypatch, [FATAL, second], "-q").stdout == "BTF: no BTF; boot another kernel\n"


def test_doctor_json_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(run(monkeypatch, [FINE, HOSTILE, FATAL], "--json").stdout)
    require_form("doctor", document)
    assert document["can_record"] is False
    assert [check["state"] for check in document["checks"]] == ["ok", "unknown", "missing"]
    assert document["checks"][1]["detail"] == HOSTILE.detail


def test_doctor_text_is_narrow_and_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [HOSTILE]).stdout
    assert "\x1b" not in text
    assert r"a\x1b[31m[red]b\nc" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("signals", [TAKEN, ABSENT])
def test_matrix_fits_100_columns(monkeypatch: pytest.MonkeyPatch, signals: list[Finding]) -> None:
    lines = run(monkeypatch, [FINE], signals=signals).stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)
    for finding in signals:
        assert any(finding.signal.name in line for line in lines)


def test_row_of_a_signal_has_its_hook_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [FINE], signals=TAKEN).stdout
    row = next(line for line in text.splitlines() if " OOM kill " in line)
    assert row.split() == ["exact", "OOM", "kill", "typed_tracepoint", "mark_victim", "1,235"]
    assert text.index("stream charge") < text.index("memory by kind") < text.index("stream pagecache")


def test_each_stream_has_one_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(monkeypatch, [FINE], signals=TAKEN).stdout.splitlines()
    headings = [line for line in lines if line.startswith("stream ")]
    assert headings == [f"stream {name}" for name in dict.fromkeys(one.stream for one in SIGNALS)]
    for one in SIGNALS:
        row = next(at for at, line in enumerate(lines) if f" {one.name} " in line)
        assert [line for line in lines[:row] if line in headings][-1] == f"stream {one.stream}"


def test_absent_signal_has_a_reason_and_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [FINE], signals=ABSENT).stdout
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if "absent  OOM kill " in line)
    assert lines[at].split() == ["absent", "OOM", "kill", "-", "-", "-"]
    assert lines[at + 1].split()[:2] == ["why:", "no"]
    assert "effect: no OOM kills" in text


def test_signal_without_events_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Finding(TAKEN[0].signal, TAKEN[0].choice, EventCost(0, None))
    text = run(monkeypatch, [FINE], signals=[never]).stdout
    assert next(line for line in text.splitlines() if "memory by kind" in line).split()[-1] == "-"


def test_legend_of_costs_needs_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [Finding(finding.signal, finding.choice) for finding in TAKEN]
    measured, not_measured = (run(monkeypatch, [FINE], signals=signals).stdout for signals in (TAKEN, chosen))
    assert "no event happened" in measured
    assert "no event happened" not in not_measured
    assert "nothing was measured" in not_measured
    assert "hook" not in run(monkeypatch, [FINE], signals=UNTRIED).stdout


def test_doctor_begins_with_the_missing_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = run(monkeypatch, [FINE, POOR], signals=ABSENT[:1]).stdout.splitlines()
    assert first == "This machine can record. What is missing, and the effect:"
    assert rest[0].split() == ["PSI", "no", "stalls", "by", "cgroup"]
    assert rest[1].split(maxsplit=3)[:3] == ABSENT[0].signal.name.split()
    assert run(monkeypatch, [FINE], signals=TAKEN).stdout.startswith("This machine can record, and nothing")
    first, second, *_ = run(monkeypatch, [FINE, FATAL, POOR]).stdout.splitlines()
    assert second.split(maxsplit=1) == ["BTF", "boot another kernel"]


def test_effect_of_what_is_not_known_is_said_to_be_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer must not read as if the mode were found to be confidentiality."""
    hidden = Check("lockdown", State.UNKNOWN, "securityfs is not mounted", "no program loads", "mount")
    _, line, *_ = run(monkeypatch, [FINE, hidden]).stdout.splitlines()
    said = "not known (securityfs is not mounted): no program loads"
    assert line.split(maxsplit=1) == ["lockdown", said]


@pytest.mark.parametrize("columns", [60, 80])
def test_narrow_terminal_has_the_hooks_below_the_signal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run(monkeypatch, [FINE], signals=TAKEN).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    for finding in TAKEN:
        assert finding.choice is not None and finding.choice.way is not None
        for hook in finding.choice.way.hooks:
            assert f"{hook.kind} {hook.target}" in " ".join(" ".join(lines).split())


def test_doctor_json_has_every_signal_and_null_for_unknown_values(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = [TAKEN[0], ABSENT[1], UNTRIED[2]]
    document = json.loads(run(monkeypatch, [FINE], "--json", signals=signals).stdout)
    require_form("doctor", document)
    taken, absent, untried = document["signals"]
    keys = "name stream hook meaning detail without required event_ns events"
    assert [" ".join(row) for row in (taken, absent, untried)] == [keys] * 3
    assert (taken["meaning"], taken["event_ns"], taken["events"]) == ("exact", 1234.6, 7)
    assert (absent["meaning"], absent["hook"], absent["event_ns"]) == ("absent", None, None)
    assert absent["detail"].startswith("no ")
    assert (untried["meaning"], untried["hook"], untried["detail"], untried["events"]) == (None,) * 4


def test_doctor_loads_programs_if_possible_and_measures_unless_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[bool, bool]] = []

    def examine_tracer(*, may_load: bool, measure: bool) -> Examination:
        asked.append((may_load, measure))
        return Examination([], [])

    monkeypatch.setattr("tracer.capture.trial.examine", examine_tracer)
    for checks, options in (([FINE, POOR], []), ([FINE, FATAL], []), ([FINE], ["--quiet"])):
        monkeypatch.setattr("tracer.kernel.features.examine", lambda checks=checks: list(checks))
        CliRunner().invoke(doctor.command, options)
    assert asked == [(True, True), (False, True), (True, False)]
