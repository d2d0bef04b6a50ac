"""The report on a guest's results."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

REFUSED: Final = "the kernel refuses the BPF program"
"""What doctor says of a signal whose program the verifier does not accept (capture/bpf/attach.py)."""

OUTCOMES: Final = ("passed", "failed", "skipped", "unsteady")

_LAST_LINES: Final = 15


@dataclass(frozen=True)
class Test:
    """One test: `outcome` is one of OUTCOMES; `message` is the reason if it is not passed.

    An unsteady test failed, and passed when it was run again.
    """

    name: str
    outcome: str
    message: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """A heading with the lines below it; `passed` if the guest's work succeeded."""

    passed: bool
    title: str
    details: list[str]

    def __str__(self) -> str:
        heading = f"{'PASS' if self.passed else 'FAIL'}  {self.title}"
        return "\n".join([heading, *(f"      {detail}" for detail in self.details)])


def guest(title: str, results: Path, seconds: float) -> Report:
    """Return the report on the tests of one guest: those not passed, and the signals by doctor.

    It is a success if pytest ended with status 0, the second time at the latest, at least one test passed,
    each that had failed passed then, and doctor, if it was run, says that the kernel took every program: a
    kernel of `make test-vm` has nothing that the verifier should refuse.
    """
    status = _read(results / "status").strip()
    again = {test.name: test.outcome for test in _tests(results / "again.xml")}
    tests = [
        replace(test, outcome="unsteady") if again.get(test.name) == "passed" else test
        for test in _tests(results / "pytest.xml")
    ]
    counts = {kind: sum(test.outcome == kind for test in tests) for kind in OUTCOMES}
    details = [f"{test.outcome}  {test.name}: {test.message}" for test in tests if test.outcome != "passed"]
    if not status:
        details += ["the guest died, or exceeded its time", *_last_lines(results / "console")]
    elif status != "0" and not counts["failed"]:
        details += [f"pytest ended with status {status}", *_last_lines(results / "pytest.log")]
    outcomes = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    doctor = results / "doctor.json"
    found = signals(_read(doctor)) if doctor.exists() else []
    is_run = status == "0" and counts["passed"] > 0 and not counts["failed"]
    passed = is_run and not any(REFUSED in line for line in found)
    return Report(passed, f"{title}: {outcomes}, in {seconds:.0f} s", details + found)


def arm64(results: Path) -> Report:
    """Return the report on a guest's compilation for arm64."""
    lines = _read(results / "arm64.log").splitlines() or ["not tried: the guest died before"]
    passed = _read(results / "arm64.status").strip() == "0"
    return Report(passed, "the programs compile for arm64", lines[-_LAST_LINES:])


def _read(file: Path) -> str:
    """Return the text of a file; "" if the guest did not write it."""
    return file.read_text(errors="replace") if file.exists() else ""


def _last_lines(file: Path) -> list[str]:
    return [f"see {file}", *_read(file).splitlines()[-_LAST_LINES:]]


def signals(doctor: str) -> list[str]:
    """Return the hook of each signal from the output of `memcg-tracer doctor --json`."""
    try:
        found = json.loads(doctor)["signals"]
    except (ValueError, KeyError):
        return ["signals: doctor did not say"]
    width = max(len(signal["name"]) for signal in found)
    return [f"signal  {s['name']:{width}}  {s['meaning']:11}  {s['hook'] or s['detail']}" for s in found]


def _tests(junit: Path) -> list[Test]:
    return [_test(case) for case in ElementTree.parse(junit).iter("testcase")] if junit.exists() else []


def _test(case: ElementTree.Element) -> Test:
    name, seconds = f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0))
    for kind, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            message = (found.get("message") or "").splitlines()
            return Test(name, outcome, message[0] if message else "", seconds)
    return Test(name, "passed", "", seconds)
