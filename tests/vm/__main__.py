"""The kernel tests on other kernels (`make test-vm`); see docs/kernels.md."""

from __future__ import annotations

import argparse
import compileall
import platform
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm import report
from vm.debian import SUITES
from vm.errors import NotRunError
from vm.kernels import Kernel, arm64_btf, cache, prepare
from vm.machine import INIT, Machine
from vm.marked_tests import files_with_tests
from vm.programs import PACKAGES, find
from vm.python_disk import CHECKOUT, PythonDisk, python_folders

AT_ONCE: Final = 3  # on two CPUs: a guest's tests often wait
FACTOR: Final = 8  # by which a guest may be slower than a real machine
TIMEOUT_S: Final = 4200  # for the tests of one guest; a guest that hangs is found earlier
BOOTS: Final = 3  # the most boots of one guest
ARM64_SERIES: Final = "7.3"
EACH: Final = "vm"
ONCE: Final = "vm_once"
PREEMPT: Final = "vm_preempt"
SYSTEMD: Final = "vm_systemd"
"""The markers of tests on each kernel; of those on the newest only, in a guest of their own because they take
longest; of those on the oldest only, in a guest with full preemption; and of those on the newest only, in a
guest whose first process is systemd."""
GUESTS: Final = {"once": ONCE, "preempt": PREEMPT, "systemd": SYSTEMD}
"""The guests beside one for each kernel. They are asked for like kernels."""
V1_TESTS: Final = ("tests/kernel/", "tests/capture/recordings/test_ledger.py")
"""The tests of files and counters, which differ on v1."""

_VARIANTS: Final = {ONCE: ", once", EACH: "", SYSTEMD: ", systemd", PREEMPT: ", preempt"}
"""Markers -> the title of their guest; those whose tests take longest come first."""
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Boot:
    """A kernel to boot, with the memory controller on cgroup `version`, and the markers of its tests."""

    kernel: Kernel
    version: int
    markers: str

    @property
    def title(self) -> str:
        """The name of the guest in the report."""
        return f"{self.kernel.release}, cgroup v{self.version}{_VARIANTS[self.markers]}"

    @property
    def results(self) -> Path:
        """The folder for the guest's results."""
        variant = _VARIANTS[self.markers].replace(", ", "-")
        return cache() / "results" / f"{self.kernel.series}-v{self.version}{variant}"

    def start(self, tests: list[str], python: PythonDisk, arm64: bytes | None) -> Machine:
        """Boot the guest; with `arm64`, the BTF of such a kernel, it also compiles the programs for that."""
        files = {"arm64.btf": arm64} if arm64 is not None else {}
        return Machine(
            self.kernel,
            self.results,
            cgroup_version=self.version,
            tests=tests,
            markers=self.markers,
            factor=FACTOR,
            timeout_s=TIMEOUT_S,
            python=python,
            files=files,
            options="preempt=full" if self.markers == PREEMPT else "",
            init="systemd" if self.markers == SYSTEMD else "",
        )


def main() -> int:
    """Return the exit status: 0 if all requested tests were run and passed."""
    parser = argparse.ArgumentParser(prog="make test-vm", description=__doc__)
    every = (*SUITES, *GUESTS)
    parser.add_argument("series", nargs="*", metavar="KERNEL", help=f"of {', '.join(every)}; default: all")
    given = list(dict.fromkeys(parser.parse_args().series or every))
    if unknown := sorted(set(given) - set(every)):
        parser.error(f"no kernel {', '.join(unknown)}: choose from {', '.join(every)}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # the exit kills the guests
    begin = time.monotonic()
    try:
        require_machine()
        compileall.compile_dir(CHECKOUT / "tracer", quiet=2)  # guests cannot: the files are read-only there
        tests = files_with_tests(list(_VARIANTS))
    except NotRunError as error:
        print(f"make test-vm: not run: {error}", file=sys.stderr)
        return 1
    boots, not_run = make_ready(
        [one for one in SUITES if one in given], [one for one in GUESTS if one in given]
    )
    try:
        arm64 = arm64_btf(ARM64_SERIES).read_bytes()
    except NotRunError as error:
        arm64 = None
        not_run.append(f"arm64: {error}")
    passed = False
    try:
        with PythonDisk(cache(), python_folders()) as python:
            passed = run(boots, tests, python, arm64) and not not_run
    except NotRunError as error:
        not_run.append(f"all guests: {error}")
    for why in not_run:
        print(f"NOT RUN  {why}")
    took_min = (time.monotonic() - begin) / 60
    print(f"{'passed' if passed else 'FAILED'} in {took_min:.1f} min; see {cache()}/results")
    return 0 if passed else 1


def require_machine() -> None:
    """Raise NotRunError if no guest can be started on this machine."""
    if platform.machine() != "x86_64":
        raise NotRunError(f"guests run this machine's x86-64 programs, and this is {platform.machine()}")
    for program in PACKAGES:
        find(program)


def last_words(results: Path) -> str:
    """Return the progress of a guest, and the last line of its console."""
    console, log = ((results / name) for name in ("console", "pytest.log"))
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines() if console.exists() else []
    return f"{'amid its tests' if log.exists() else 'before its tests'}, last line {(lines or [''])[-1]!r}"


def make_ready(asked: Sequence[str], guests: Sequence[str]) -> tuple[list[Boot], list[str]]:
    """Return the guests to boot, and for each that cannot be booted the reason. The series are ascending."""
    oldest, newest = (asked or list(SUITES))[0], (asked or list(SUITES))[-1]
    wanted = [(series, EACH) for series in asked]
    wanted += [(oldest if guest == "preempt" else newest, GUESTS[guest]) for guest in guests]
    boots, not_run = [], []
    for series, markers in wanted:
        try:
            if markers == SYSTEMD and not INIT.exists():
                raise NotRunError(f"no {INIT} here: install systemd")
            kernel = prepare(series)
        except NotRunError as error:
            not_run.append(f"{series}{_VARIANTS[markers]}: {error}")
            continue
        boots.append(Boot(kernel, 2, markers))
        if markers == EACH and kernel.has_v1:
            boots.append(Boot(kernel, 1, markers))
        if markers == EACH and not kernel.has_v1:
            print(f"{kernel.release} is built without the memory controller of cgroup v1", file=sys.stderr)
    return sorted(boots, key=lambda boot: (-boot.version, [*_VARIANTS].index(boot.markers))), not_run


def run(
    boots: Sequence[Boot], tests: Mapping[str, list[str]], python: PythonDisk, arm64: bytes | None
) -> bool:
    """Boot the guests, AT_ONCE at a time, and print the report of each; the last one compiles for arm64.

    A guest at a standstill is booted again, up to BOOTS times. Return whether there was a guest, and all
    passed.
    """
    waiting, reports = deque(boots), []
    running: dict[Boot, tuple[Machine, float]] = {}
    booted: Counter[Boot] = Counter()
    with ExitStack() as machines:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                boot = waiting.popleft()
                booted[boot] += 1
                print(f"booting {boot.title}", file=sys.stderr)
                selected = tests[boot.markers]
                if boot.version == 1:
                    selected = [file for file in selected if file.startswith(V1_TESTS)]
                machine = boot.start(selected, python, arm64 if boot is boots[-1] else None)
                running[boot] = machines.enter_context(machine), time.monotonic()
            time.sleep(_POLL_S)
            for boot, (machine, begin) in list(running.items()):
                if machine.is_at_a_standstill() and booted[boot] < BOOTS:
                    machine.stop()
                    del running[boot]
                    waiting.appendleft(boot)
                    print(f"HUNG  {boot.title}, {last_words(boot.results)}: booting it again", flush=True)
                elif machine.has_ended():
                    machine.stop()
                    del running[boot]
                    reports.append(report.guest(boot.title, boot.results, time.monotonic() - begin))
                    print(reports[-1], flush=True)
    if boots and arm64 is not None:
        reports.append(report.arm64(boots[-1].results))
        print(reports[-1])
    return bool(reports) and all(found.passed for found in reports)


if __name__ == "__main__":
    sys.exit(main())
