from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from tracer.cli import doctor
from tracer.kernel.doctor import Check, State

FINE = Check("kernel", State.OK, "Linux 6.18.0, x86_64")
POOR = Check("PSI", State.DEGRADED, "of the whole machine only", "no stalls by cgroup", "boot with v2")
FATAL = Check(
    "BTF", State.MISSING, "no BTF", "nothing can be read", "boot another kernel", prevents_recording=True
)
HOSTILE = Check("lockdown", State.UNKNOWN, "a\x1b[31m[red]b\nc", "x" * 300, "y")


def run(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *arguments: str) -> Result:
    """The command on a machine of which `checks` hold, with nothing to say of the tracer itself."""
    monkeypatch.setattr(doctor, "examine_kernel", lambda: list(checks))
    monkeypatch.setattr(doctor, "examine_tracer", lambda *, may_load: [])
    return CliRunner().invoke(doctor.command, arguments)


def test_exit_status_tells_whether_record_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, POOR]).exit_code == 0
    result = run(monkeypatch, [FINE, FATAL, POOR])
    assert result.exit_code == 1
    assert "`record` cannot work here, because of: BTF." in result.stdout


def test_what_is_missing_comes_with_its_cost_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [FINE, POOR]).stdout
    assert "no stalls by cgroup" in text
    assert "boot with v2" in text


def test_quiet_is_one_line_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE, POOR], "--quiet").stdout == ""
    second = Check("permissions", State.MISSING, "none", "", "sudo", prevents_recording=True)
    assert run(monkeypatch, [FATAL, second], "-q").stdout == "BTF: no BTF; boot another kernel\n"


def test_json_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(run(monkeypatch, [FINE, HOSTILE, FATAL], "--json").stdout)
    assert document["can_record"] is False
    assert [check["state"] for check in document["checks"]] == ["ok", "unknown", "missing"]
    assert document["checks"][1]["detail"] == HOSTILE.detail


def test_plain_text_is_narrow_and_escapes_what_others_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, [HOSTILE]).stdout
    assert "\x1b" not in text
    assert r"a\x1b[31m[red]b\nc" in text
    assert max(map(len, text.splitlines())) <= 100


def test_programs_are_tried_only_where_the_kernel_may_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def examine_tracer(*, may_load: bool) -> list[Check]:
        asked.append(may_load)
        return []

    for checks in ([FINE, POOR], [FINE, FATAL]):
        monkeypatch.setattr(doctor, "examine_kernel", lambda checks=checks: list(checks))
        monkeypatch.setattr(doctor, "examine_tracer", examine_tracer)
        CliRunner().invoke(doctor.command)
    assert asked == [True, False]
