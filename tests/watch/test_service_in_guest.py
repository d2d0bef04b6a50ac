"""The service under systemd: it starts, a kill leaves a trace, systemd starts it again, and nothing is left.

These tests install a service, so they run only in a guest of `make test-vm` whose first process is systemd.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from support.slowdown import SLOWDOWN

from tracer.capture.bpf.syscall import machine
from tracer.watch.service import NAME, STATE_FOLDER, quoted

pytestmark = [pytest.mark.vm_systemd, pytest.mark.timeout(60)]

WITHIN_S: Final = 30.0 * SLOWDOWN
POLL_S: Final = 0.5
CACHE: Final = Path("/var/cache/memcg-tracer")
UNITS: Final = Path("/run/systemd/system")
VICTIM: Final = "victim"
_BPF_PROG_GET_NEXT_ID: Final = 11
_BPF_PROG_GET_FD_BY_ID: Final = 13
_OF_SYSTEMD: Final = frozenset({"8", "9", "15", "18", "23", "29"})
"""The types (enum bpf_prog_type) of systemd's programs, which it replaces at any time: for packets, sockets,
devices and sysctls of cgroups, and LSM."""


class _IdAttr(ctypes.Structure):
    """The member of union bpf_attr for BPF_PROG_GET_NEXT_ID and BPF_PROG_GET_FD_BY_ID."""

    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


def tracing_programs() -> set[int]:
    """Return the ids of the BPF programs in the kernel that are not systemd's."""
    attr, found = _IdAttr(), set()
    while _bpf(_BPF_PROG_GET_NEXT_ID, attr) == 0:
        attr = _IdAttr(id=attr.next_id)
        program = _bpf(_BPF_PROG_GET_FD_BY_ID, attr)
        if program >= 0:  # it can be gone
            described = Path(f"/proc/self/fdinfo/{program}").read_text()
            os.close(program)
            fields = dict(re.findall(r"^(\w+):\s+(\w+)", described, flags=re.MULTILINE))
            if fields["prog_type"] not in _OF_SYSTEMD:
                found.add(attr.id)
    return found


def _bpf(command: int, attr: _IdAttr) -> int:
    number = machine().bpf_number
    return int(ctypes.CDLL(None).syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr)))


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, (command, journal())
    return done.stdout


def journal() -> str:
    command = ["journalctl", "--no-pager", "-o", "cat", "-u", NAME]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def shown(setting: str) -> str:
    return output_of("systemctl", "show", "--value", "-p", setting, NAME).strip()


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, (what, journal())
        time.sleep(POLL_S)


def traces() -> set[Path]:
    """Return the finished traces that the service has reported."""
    return {Path(path) for path in re.findall(rf"{STATE_FOLDER}/[\w.-]+", journal())}


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """Install the service as its user does, and stop it at the end."""
    if not (os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") and "VM_CHECKOUT" in os.environ and UNITS.exists()):
        pytest.skip("installs a service: only in a guest with systemd (make test-vm)")
    checkout, results = os.environ["VM_CHECKOUT"], os.environ["VM_RESULTS"]
    program = Path(checkout, ".venv/bin/memcg-tracer")
    (UNITS / NAME).write_text(output_of(program, "unit", "--", "--keep", "1m"))
    # The host compiles for the guest, by files in the folder of results (tests/vm/compiler.sh).
    passed = {
        name: os.environ[name] for name in ("MEMCG_TRACER_COMPILER", "VM_RESULTS") if name in os.environ
    }
    passed["PYTHONPATH"] = checkout
    drop_in = UNITS / f"{NAME}.d" / "guest.conf"
    drop_in.parent.mkdir(exist_ok=True)  # what failed is run again in the same guest
    lines = [
        *(f"Environment={quoted(f'{name}={os.environ[name]}')}" for name in passed),
        "TimeoutStartSec=infinity",  # the test has its own limit
        # They can be below /tmp, of which the service has its own.
        f"BindReadOnlyPaths={quoted(checkout)}",
        f"BindPaths={quoted(results)}",
    ]
    drop_in.write_text("\n".join(["[Service]", *lines, ""]))
    output_of("systemctl", "daemon-reload")
    yield
    output_of("systemctl", "stop", NAME)


@pytest.fixture
def service(installed: None) -> None:
    """Start the service if it does not run; `systemctl start` returns when it is ready."""
    output_of("systemctl", "start", NAME)
    assert shown("ActiveState") == "active"


@pytest.mark.usefixtures("service")
def test_calibration_in_the_service_finds_the_counters() -> None:
    """Positions are kept only if all were learnt, for which a cgroup and a TCP connection are made."""
    kept = [file.read_bytes() for file in CACHE.iterdir()]
    assert any(b'"pgsteal": ' in document and b'"MEMCG_SOCK": ' in document for document in kept)


@pytest.mark.usefixtures("service")
def test_kill_leaves_a_trace_and_its_explanation_in_the_journal() -> None:
    limits = ("MemoryMax=40M", "MemorySwapMax=0")
    before = traces()
    run = ("systemd-run", "--quiet", "--collect", f"--unit={VICTIM}")
    output_of(*run, *(f"-p{one}" for one in limits), "tail", "/dev/zero")
    wait_until(lambda: traces() - before, "no trace was reported")
    (trace,) = traces() - before
    assert trace.stat().st_mode & 0o077 == 0
    (line,) = (line for line in journal().splitlines() if line.endswith(f" {trace}"))
    assert line.startswith(f"/system.slice/{VICTIM}.service: ")
    assert "tail" in line
    assert "40 MiB" in line


@pytest.mark.usefixtures("service")
def test_recorder_that_is_killed_is_started_again() -> None:
    pid, restarts = int(shown("MainPID")), int(shown("NRestarts"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: shown("NRestarts") == str(restarts + 1), "it was not started again")
    wait_until(lambda: shown("ActiveState") == "active", "it was started again and is not ready")
    assert int(shown("MainPID")) not in (0, pid)


@pytest.mark.usefixtures("service")
def test_stop_leaves_no_process_and_no_program() -> None:
    assert tracing_programs()
    cgroup = Path("/sys/fs/cgroup", shown("ControlGroup").lstrip("/"))
    output_of("systemctl", "stop", NAME)
    assert shown("Result") == "success"
    assert not cgroup.exists()
    assert list(cgroup.parent.glob("memcg-tracer-*")) == []
    wait_until(lambda: not tracing_programs(), "BPF programs are left")
    unfinished = [path.name for path in Path(STATE_FOLDER).iterdir() if path.name.startswith(".")]
    assert unfinished == []
