"""The accounts of the ledger: how often a program runs to look at them, and when they are closed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tracer.capture.bpf.accounts import Accounts
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.readings import lost
from tracer.capture.bpf.roots import Roots
from tracer.capture.learn.calibration import calibrate, find_memcg
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.beside, pytest.mark.vm]

MANY: Final = 150
ROOM: Final = 192


class Ledger:
    """Accounts of empty cgroups, and the runs of the program that looks at them."""

    def __init__(self, programs: Programs, top: Path) -> None:
        self.programs = programs
        self.roots = Roots(programs)
        self.closed: list[int] = []
        self.warnings: list[str] = []
        self.accounts = Accounts(
            programs, lambda slot, cgroup, cpu_ns: self.closed.append(cgroup), self.warnings.append
        )
        self.accounts.open()
        self.ids: dict[Path, int] = {}
        for number in range(MANY):
            self.add(top / str(number))
        self._run, self._looks = programs.run, 0
        programs.run = self._count  # type: ignore[method-assign]

    def add(self, directory: Path) -> None:
        directory.mkdir()
        self.ids[directory] = cgroup_id(directory)
        self.roots.add(self.ids[directory])
        self.accounts.prime(find_memcg(self.programs, directory), self.ids[directory])

    def _count(self, name: str, args: Sequence[int] = (), cpu: int | None = None) -> int:
        self._looks += name == "look"
        return self._run(name, args, cpu)

    def looks(self) -> int:
        """Look at all accounts, and return how often the program was run for it."""
        self._looks = 0
        self.accounts.look()
        return self._looks


@pytest.fixture
def top() -> Iterator[Path]:
    with ephemeral_cgroup("test-accounts", None) as directory:
        if (control := directory / "cgroup.subtree_control").exists():
            control.write_text("+memory", encoding="ascii")
        yield directory


@pytest.fixture
def ledger(top: Path) -> Iterator[Ledger]:
    hierarchy = memory_hierarchy()
    with closing(Programs(version=hierarchy.version, accounts=ROOM)) as programs:
        programs.wait(print)
        calibrate(programs, programs.types, hierarchy)
        programs.attach(print)
        made = Ledger(programs, top)
        made.looks()  # the first look at an account has more to do
        yield made


def test_cgroup_without_room_is_counted_and_warned_of_once(ledger: Ledger, top: Path) -> None:
    for number in range(ROOM - 1 - MANY):
        ledger.add(top / f"last-{number}")
    ledger.looks()
    assert (ledger.warnings, lost(ledger.programs)["residue"]) == ([], 0), "all have their account"
    for number in range(2):
        ledger.add(top / f"further-{number}")
        ledger.looks()
    (warning,) = ledger.warnings
    assert warning.startswith(f"the ledger has room for {ROOM - 1} cgroups, and more are traced: ")
    assert lost(ledger.programs)["residue"] == 2


def test_look_at_many_accounts_runs_once_on_each_cpu(ledger: Ledger, top: Path) -> None:
    """Also after a cgroup was made: what was known of the addresses of memcgs is stale then."""
    assert ledger.looks() == ledger.programs.cpus
    (top / "another").mkdir()
    assert ledger.looks() == ledger.programs.cpus


def test_account_of_a_refused_cgroup_is_closed_at_the_next_look(ledger: Ledger) -> None:
    refused = [*ledger.ids.values()][3::7]
    ledger.roots.remove(refused)
    ledger.looks()
    assert sorted(ledger.closed) == sorted(refused)
    ledger.closed.clear()
    ledger.looks()
    assert not ledger.closed


def test_account_of_a_removed_empty_cgroup_is_closed(ledger: Ledger) -> None:
    directory, number = [*ledger.ids.items()][-1]
    directory.rmdir()
    while number not in ledger.closed:  # the kernel releases the memcg some milliseconds later
        ledger.looks()
    assert ledger.closed == [number]


def test_oldest_dead_roots_are_forgotten_with_their_accounts(ledger: Ledger) -> None:
    """A root that was removed is traced for its memory, but not for ever."""
    first = next(iter(ledger.ids.values()))
    ledger.roots.bury(first)
    ledger.looks()
    assert not ledger.closed
    for number in range(1 << 11):
        ledger.roots.bury((1 << 40) + number)
    ledger.looks()
    assert ledger.closed == [first]
