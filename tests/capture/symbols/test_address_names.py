"""Names of addresses in synthetic processes that live, end and execute other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.symbols import address_names
from tracer.capture.symbols.address_names import (
    ENDED_KEPT_S,
    ExecImage,
    Resolved,
    StackCopy,
    UserSymbols,
    joined,
    read_image,
)

ONE, OTHER = ExecImage(0x1000, 0x7FFF_0000), ExecImage(0x1000, 0x7FFE_0000)
MAPS = "1000-9000 r-xp 00000000 08:01 77  /bin/work\n"


class Table:
    """A table with functions of 0x100 bytes at 0x1000, 0x1100, ... in a module that ends at 0x2000."""

    def __init__(self, tgid: int, world: World) -> None:
        self.tgid = tgid
        self.world = world
        self.generation = world.generation
        self.asked: list[int] = []

    def resolve_all(self, addresses: Sequence[int]) -> list[Resolved]:
        self.asked += addresses
        return [self.at(address) for address in addresses]

    def at(self, address: int) -> Resolved:
        if 0x1000 <= address < 0x2000:
            number, offset = divmod(address - 0x1000, 0x100)
            return Resolved(f"f{number}.{self.generation}", offset, "/bin/work")
        if 0x2000 <= address < 0x3000:
            return Resolved(None, address - 0x2000, "/lib/no symbols.so")
        return Resolved(None, address, "[vdso]" if address < 0x4000 else None)

    def unwind(self, copy: StackCopy) -> list[int]:
        return [0x8000 + byte for byte in copy.stack]

    def close(self) -> None:
        self.world.open.remove(self)


class World:
    """A folder like /proc, and the tables that were made."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.generation = 0
        self.made: list[Table] = []
        self.open: list[Table] = []
        self.now_s = 100.0
        self.symbols = UserSymbols(self.table, proc, lambda: self.now_s)

    def table(self, tgid: int) -> Table:
        self.made.append(Table(tgid, self))
        self.open.append(self.made[-1])
        return self.made[-1]

    def runs(self, tgid: int, image: ExecImage, maps: str = MAPS) -> None:
        folder = self.proc / str(tgid)
        folder.mkdir(exist_ok=True)
        fields = ["S"] + ["0"] * 22 + [str(image.start_code), "0", str(image.start_stack), "0"]
        (folder / "stat").write_text(f"{tgid} (a) b) {' '.join(fields)}\n")
        (folder / "maps").write_text(maps)

    def frames(self, *stack: Any) -> list[str]:
        return self.symbols.name(*stack).frames

    def ends(self, tgid: int) -> None:
        shutil.rmtree(self.proc / str(tgid))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_frame_has_symbol_and_module_as_far_as_known(world: World) -> None:
    world.runs(7, ONE)
    frames = world.frames(7, [0x1234, 0x1310, 0x2040, 0x3040, 0x5000], ONE)
    assert frames == ["f2.0 [work]", "f3.0 [work]", "[no symbols.so]+0x40", "0x3040", "0x5000"]


def test_caller_frame_names_the_function_of_the_call(world: World) -> None:
    """A call that never returns may end its function: its return address lies in the next function."""
    world.runs(7, ONE)
    assert world.frames(7, [0x1100, 0x1100], ONE) == ["f1.0 [work]", "f0.0 [work]"]


@pytest.mark.parametrize(
    "no_code", [0, 1, 0x5FFF, 0x9000, 0xA123, 0x7FC5_AA26_ACE0, 1 << 63, 0xFFFF_8000_0000_0000, (1 << 64) - 1]
)
def test_stack_ends_before_an_address_that_is_no_code(world: World, no_code: int) -> None:
    """The stack of a program without frame pointers may hold any value. What follows is no frame either."""
    maps = "1000-5000 r-xp 00000000 08:01 77  /bin/work\n5000-a000 rw-p 00004000 08:01 77  /bin/work\n"
    world.runs(7, ONE, maps + "a000-b000 rw-p 00000000 00:00 0 [heap]\n")
    assert world.symbols.name(7, [0x1234, 0x1311, no_code], ONE) == (["f2.0 [work]", "f3.0 [work]"], True)
    assert world.frames(7, [0x1234, 0x5123, 0x1311], ONE) == ["f2.0 [work]"]
    assert world.symbols.name(7, [no_code], ONE) == ([f"{no_code:#x}"], False), "this instruction ran"


@pytest.mark.parametrize("is_known", [True, False])
def test_impossible_address_ends_the_stack_of_any_process(world: World, is_known: bool) -> None:
    if is_known:
        world.runs(7, ONE, MAPS + "a000-b000 rwxp 00000000 00:00 0\n")
    for impossible in (1, 1 << 63):
        assert len(world.frames(7, [0x1234, impossible, 0x1311], ONE)) == 1


def test_process_that_ended_before_its_mappings_were_read_has_the_names_of_its_program(world: World) -> None:
    """A process may also run its next program by then, and be named by what it has mapped itself."""
    asked = []

    def table_of_ended(tgid: int, image: ExecImage) -> Table | None:
        asked.append((tgid, image))
        return world.table(tgid) if image == ONE else None

    world.symbols = UserSymbols(world.table, world.proc, lambda: world.now_s, table_of_ended)
    for _ in range(2):
        assert world.frames(7, [0x1234, 0x77000], ONE) == ["f2.0 [work]", "0x77000"]
    assert world.frames(8, [0x1234], OTHER) == ["0x1234"]
    assert asked == [(7, ONE), (8, OTHER)]
    world.runs(7, OTHER)
    assert world.frames(7, [0x1310], ONE) == ["f3.0 [work]"], "the file is the same"
    world.generation = 1
    assert world.frames(7, [0x1310], OTHER) == ["f3.1 [work]"]
    assert [table.generation for table in world.open] == [1]
    world.symbols.close()
    assert not world.open


def test_code_of_a_compiler_ends_no_stack(world: World) -> None:
    """It makes memory executable at any time, and such code has no name without a perf map."""
    compiled = "c000-d000 rwxp 00000000 00:00 0\nd000-e000 rw-p 00000000 00:00 0\n"
    heap = "f000-10000 rw-p 00000000 00:00 0 [heap]\n"
    world.runs(7, ONE, MAPS + compiled + heap)
    stack = [0x1234, 0xC001, 0xD001, 0x77000]
    assert world.symbols.name(7, stack, ONE) == (["f2.0 [work]", "0xc001", "0xd001", "0x77000"], False)
    assert world.symbols.name(7, [*stack, 0xF001], ONE).left_code


def test_library_that_was_mapped_since_ends_no_stack(world: World) -> None:
    """Mappings are read again after a while only."""
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    assert world.symbols.name(7, [0x1234, 0x7700, 0xC0DE, 0x1311], ONE) == (
        ["f2.0 [work]", "0x7700", "0xc0de", "f3.0 [work]"],
        False,
    )


def test_address_in_a_file_is_looked_up_once(world: World) -> None:
    world.runs(7, ONE)
    for _ in range(3):
        world.frames(7, [0x1234, 0x1310], ONE)
    assert [table.asked for table in world.made] == [[0x1234, 0x130F]]


def test_address_outside_of_files_is_looked_up_again(world: World) -> None:
    """A just-in-time compiler replaces code by other code."""
    world.runs(7, ONE)
    for _ in range(2):
        world.frames(7, [0x5000], ONE)
    assert [table.asked for table in world.made] == [[0x5000, 0x5000]]


def test_known_process_that_ended_keeps_its_names(world: World) -> None:
    """Its other names can still be looked up: the table has the modules open."""
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.ends(7)
    assert world.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "f4.0 [work]"]


def test_process_that_ends_while_its_mappings_are_read_keeps_its_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.now_s += 1
    code_of = address_names._code

    def ends_before(proc: Path, tgid: int) -> address_names._Code:
        world.ends(tgid)
        return code_of(proc, tgid)

    monkeypatch.setattr(address_names, "_code", ends_before)
    assert world.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "f4.0 [work]"]
    monkeypatch.undo()
    assert world.frames(7, [0x1510], ONE) == ["f5.0 [work]"]
    assert world.open == world.made[:1]


def test_process_that_executes_while_its_mappings_are_read_keeps_known_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more names are looked up, since the table might read the new program."""
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.now_s += 1

    def executes_before(proc: Path, tgid: int) -> address_names._Code:
        world.runs(tgid, OTHER)
        return address_names._Code([], has_other=False)

    monkeypatch.setattr(address_names, "_code", executes_before)
    assert world.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "0x1410"]
    assert world.open == world.made[:1]


def test_unknown_process_that_ended_gives_addresses(world: World) -> None:
    assert world.frames(7, [0x1234, 0x1310], ONE) == ["0x1234", "0x1310"]
    assert not world.made


def test_stack_from_before_an_exec_gives_addresses(world: World) -> None:
    world.runs(7, OTHER)
    assert world.frames(7, [0x1234], ONE) == ["0x1234"]
    assert world.frames(7, [0x1234], OTHER) == ["f2.0 [work]"]
    assert world.frames(7, [0x1234], ONE) == ["0x1234"]


def test_names_learnt_before_an_exec_stay_valid_for_older_stacks(world: World) -> None:
    """The table is not used for more look-ups: it might read the new program."""
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.runs(7, OTHER)
    assert world.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "0x1410"]


def test_reused_pid_gets_a_new_table(world: World) -> None:
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.ends(7)
    world.generation = 1
    world.runs(7, OTHER)
    assert world.frames(7, [0x1234], OTHER) == ["f2.1 [work]"]
    assert len(world.open) == 1


def test_exec_while_the_table_is_made_gives_addresses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.table

    def table(tgid: int) -> Table:
        world.runs(tgid, OTHER)
        return made(tgid)

    world.runs(7, ONE)
    world.symbols = UserSymbols(table, world.proc)
    assert world.frames(7, [0x1234], ONE) == ["0x1234"]
    assert not world.open


def test_mappings_are_read_in_a_twentieth_of_the_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a large program take milliseconds, and each stack may need them."""
    read, looks = address_names._code, []

    def slow(proc: Path, tgid: int) -> address_names._Code:
        looks.append(tgid)
        world.now_s += 0.01
        return read(proc, tgid)

    monkeypatch.setattr(address_names, "_code", slow)
    world.runs(7, ONE)
    begin_s = world.now_s
    while world.now_s < begin_s + 2:
        world.frames(7, [0x1234], ONE)
        world.now_s += 0.001
    assert 8 <= len(looks) <= 10
    world.runs(7, OTHER)
    world.frames(7, [0x1234], OTHER)
    assert len(world.made) == 2, "another program is seen at once"


def test_copy_of_a_stack_gives_the_callers(world: World) -> None:
    world.runs(7, ONE)
    copy = StackCopy(b"", bytes([0x11, 0x12, 0x22]))
    by_frame_pointers = [0x8011, 0x8022, 0x8033]
    assert world.frames(7, by_frame_pointers, ONE, copy) == ["0x8011", "0x8012", "0x8022", "0x8033"]
    assert world.frames(7, by_frame_pointers, OTHER, copy) == ["0x8011", "0x8022", "0x8033"], "not its table"


def test_unwinding_that_leaves_the_code_goes_on_by_frame_pointers(world: World) -> None:
    world.runs(7, ONE, MAPS.replace("9000", "80f0"))
    copy = StackCopy(b"", bytes([0x11, 0xF3]))
    assert world.symbols.name(7, [0x8011, 0x8022], ONE, copy) == (["0x8011", "0x8022"], False)


@pytest.mark.parametrize(
    ("unwound", "by_frame_pointers", "whole"),
    [
        ([1, 2, 3], [1, 3], [1, 2, 3]),
        ([1, 2, 3], [1, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 2, 3], [1, 9], [1, 2, 3]),
        ([1, 2, 3], [], [1, 2, 3]),
        ([1], [1, 3, 4], [1, 3, 4]),
        ([], [1, 3, 4], [1, 3, 4]),
        ([1, 2, 2], [1, 2, 4], [1, 2, 2, 4]),
    ],
)
def test_frame_pointers_show_what_lies_beyond_the_copy(
    unwound: list[int], by_frame_pointers: list[int], whole: list[int]
) -> None:
    assert joined(unwound, by_frame_pointers) == whole


def test_module_mapped_later_gets_a_new_table(world: World) -> None:
    world.runs(7, ONE)
    world.frames(7, [0x1234], ONE)
    world.generation = 1
    world.runs(7, ONE, MAPS + "a000-b000 rw-p 00000000 00:00 0\nc000-d000 r-xp 00000000 00:00 0 [vdso]\n")
    assert world.frames(7, [0x1234], ONE) == ["f2.0 [work]"]
    world.runs(7, ONE, MAPS + "a000-b000 r-xp 00000000 08:01 78  /lib/late.so\n")
    assert world.frames(7, [0x1234], ONE) == ["f2.1 [work]"]
    assert len(world.open) == 1


def test_open_tables_stay_few_for_many_processes(world: World) -> None:
    for tgid in range(1, 500):
        image = ExecImage(0x1000, tgid)
        world.runs(tgid, image)
        assert world.frames(tgid, [0x1234], image) == ["f2.0 [work]"]
        assert len(world.open) <= 8
    world.symbols.close()
    assert not world.open


def test_processes_forked_without_an_exec_share_a_table_while_its_process_lives(world: World) -> None:
    """A pool of workers would need a child of the recorder for each."""
    for tgid in range(1, 501):
        world.runs(tgid, ONE)
        assert world.frames(tgid, [0x1234], ONE) == ["f2.0 [work]"]
    (table,) = world.made
    assert table.asked == [0x1234], "they share the names"
    world.ends(1)
    world.frames(499, [0x1310], ONE)
    assert [table.tgid for table in world.made] == [1, 499]
    world.frames(500, [0x1410], ONE)
    assert [table.tgid for table in world.made] == [1, 499]
    for tgid in range(437, 499):
        world.frames(tgid, [0x1410], ONE)
    assert [table.tgid for table in world.open] == [499]
    world.symbols.close()
    assert not world.open


@pytest.mark.parametrize(
    ("maps", "tables"),
    [
        (MAPS + "c000-d000 r-xp 00000000 00:00 0 [vdso]\n", 1),
        (MAPS + "c000-d000 rwxp 00000000 00:00 0\n", 2),  # each may hold other code by now
        (MAPS + "c000-d000 r-xp 00000000 00:00 0 [anon:v8]\n", 2),
    ],
)
def test_table_is_shared_only_if_all_code_is_in_the_same_files(world: World, maps: str, tables: int) -> None:
    for tgid in (1, 2):
        world.runs(tgid, ONE, maps)
        world.frames(tgid, [0x1234], ONE)
    world.runs(3, ONE, maps + "e000-f000 r-xp 00000000 08:01 78  /lib/plugin.so\n")
    world.frames(3, [0x1234], ONE)
    world.runs(4, OTHER, maps)
    world.frames(4, [0x1234], OTHER)
    assert len(world.made) == tables + 2


def test_worker_that_maps_more_code_gets_its_own_table(world: World) -> None:
    for tgid in (1, 2):
        world.runs(tgid, ONE)
        world.frames(tgid, [0x1234], ONE)
    world.runs(1, ONE, MAPS + "c000-d000 rwxp 00000000 00:00 0\n")
    world.frames(1, [0x1410], ONE)
    assert [table.tgid for table in world.open] == [1, 1], "the other one still has the first"
    world.runs(2, OTHER)
    world.frames(2, [0x1410], OTHER)
    assert [table.tgid for table in world.open] == [1, 2]


def test_tables_of_ended_processes_are_freed_before_another_is_made(world: World) -> None:
    """Each is a process. A crash loop would leave as many as may be open; its stacks come at once."""
    world.runs(1, OTHER)
    world.frames(1, [0x1000], OTHER)
    for victim in range(2, 6):
        world.runs(victim, ONE)
        world.frames(victim, [0x1000], ONE)
        world.ends(victim)
        assert world.frames(victim, [0x1100], ONE) == ["f1.0 [work]"], "a stack that waited"
        world.now_s += ENDED_KEPT_S + 1
        assert [table.tgid for table in world.open] == [1, victim], "the first process lives"


def test_long_symbol_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "at", lambda *_: Resolved("x" * 10_000_000, 0, "/bin/work"))
    world.runs(7, ONE)
    assert len(world.frames(7, [0x1234], ONE)[0]) < 600


@pytest.mark.parametrize("stat", ["", "7 (a", "7 (a) S 1 2 3", "7 (a) S" + " x" * 40])
def test_read_image_of_a_malformed_stat_returns_zeros(tmp_path: Path, stat: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat)
    assert read_image(tmp_path, 7) == ExecImage(0, 0)


def test_read_image_of_this_process_matches_its_maps() -> None:
    """The stack address lies in the stack of /proc/self/maps."""
    own = read_image(Path("/proc"), os.getpid())
    stack = next(line for line in Path("/proc/self/maps").read_text().splitlines() if "[stack]" in line)
    begin, end = (int(number, 16) for number in stack.split()[0].split("-"))
    assert begin <= own.start_stack < end
    assert own.start_code
