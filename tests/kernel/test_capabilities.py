from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracer.kernel.capabilities import OOM_SCORE_ADJ, Capability, Credentials

FULL = 0x1FFFFFFFFFF


def bits(*capabilities: Capability) -> int:
    return sum(1 << capability for capability in capabilities)


def lost(held: int, **given: Any) -> list[str]:
    """Return the names of the capabilities whose absence costs something."""
    facts = {"hides_addresses": True, "oom_score_adj": 0, "has_real_time": False} | given
    return [one.name for one, _ in Credentials(0, held, **facts).losses()]


def test_nothing_is_lost_with_all_capabilities() -> None:
    assert lost(FULL) == []


@pytest.mark.parametrize("one", ["SYSLOG", "SYS_PTRACE", "SYS_RESOURCE", "SYS_NICE", "SYS_ADMIN"])
def test_a_missing_capability_is_named(one: str) -> None:
    assert lost(FULL & ~bits(Capability[one])) == [one]


def test_one_capability_stands_for_another() -> None:
    assert lost(FULL & ~bits(Capability.DAC_READ_SEARCH)) == []
    assert lost(FULL & ~bits(Capability.CHECKPOINT_RESTORE)) == []
    both = bits(Capability.DAC_READ_SEARCH, Capability.DAC_OVERRIDE)
    assert lost(FULL & ~both) == ["DAC_READ_SEARCH"]
    assert lost(FULL & ~bits(Capability.CHECKPOINT_RESTORE, Capability.SYS_ADMIN)) == [
        "CHECKPOINT_RESTORE",
        "SYS_ADMIN",
    ]


def test_what_the_process_was_given_stands_for_a_capability() -> None:
    without = FULL & ~bits(Capability.SYSLOG, Capability.SYS_RESOURCE, Capability.SYS_NICE)
    assert lost(without, hides_addresses=False, oom_score_adj=OOM_SCORE_ADJ, has_real_time=True) == []


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (0, ["CAP_BPF", "CAP_PERFMON"]),
        (bits(Capability.BPF), ["CAP_PERFMON"]),
        (bits(Capability.PERFMON), ["CAP_BPF"]),
        (bits(Capability.SYS_ADMIN), []),
    ],
)
def test_programs_need_two_capabilities(held: int, missing: list[str]) -> None:
    assert Credentials(0, held, True, 0, True).missing_to_load() == missing


def test_own_credentials_are_read_from_files(tmp_path: Path) -> None:
    own = tmp_path / "self"
    own.mkdir()
    (own / "status").write_text("Name:\tpython3\nUid:\t1\t7\t1\t1\nCapEff:\t000000c000000000\n")
    (own / "oom_score_adj").write_text("-17\n")
    (tmp_path / "kallsyms").write_text("0000000000000000 A a\n0000000000000000 T b\n")
    found = Credentials.own(tmp_path)
    assert (found.user, found.oom_score_adj, found.hides_addresses) == (7, -17, True)
    assert found.missing_to_load() == []
    (tmp_path / "kallsyms").write_text("0000000000000000 A a\nffffffff81000000 T b\n")
    assert not Credentials.own(tmp_path).hides_addresses
    (tmp_path / "kallsyms").unlink()
    assert Credentials.own(tmp_path).hides_addresses


def doctor(*options: str, inherited: str = "-all") -> Any:
    """Return what doctor finds as root with fewer capabilities."""
    own = ["setpriv", f"--inh-caps={inherited}", *options]
    command = [*own, sys.executable, "-m", "tracer", "doctor", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def state_of(found: Any) -> dict[str, str]:
    return {check["name"]: check["state"] for check in found["checks"]}


@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_doctor_with_dropped_capabilities_is_true() -> None:
    """Take capabilities from a real process, and compare what doctor says with what the kernel does."""
    few = doctor("--bounding-set=-all,+bpf,+perfmon")
    assert few["can_record"], few["checks"]
    states = state_of(few)
    assert {"CAP_SYSLOG", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"} <= states.keys()
    assert states["event costs"] == "unknown", "the kernel refuses to measure them"
    for missing in ("bpf", "perfmon"):
        none = doctor(f"--bounding-set=-all,+syslog,+bpf,+perfmon,-{missing}")
        assert not none["can_record"]
        [check] = [check for check in none["checks"] if check["name"] == "permissions"]
        assert check["detail"] == f"root lacks CAP_{missing.upper()}"
    reader = "-all,+dac_read_search"  # this checkout may be in a home that other users cannot enter
    as_nobody = ("--reuid=65534", "--regid=65534", "--clear-groups", f"--ambient-caps={reader}")
    user = doctor(*as_nobody, inherited=reader)
    assert not user["can_record"]
    assert "user 65534 lacks CAP_BPF and CAP_PERFMON" in json.dumps(user)
