"""Names of addresses in processes that live, die and become others, made up here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tracer.capture.symbols.address_names import ExecImage, UserSymbols, read_image

ONE, OTHER = ExecImage(0x1000, 0x7FFF_0000), ExecImage(0x1000, 0x7FFE_0000)
MAPS = "1000-9000 r-xp 00000000 08:01 77  /bin/work\n"


class Table:
    """As of when it was made: functions of 0x100 bytes at 0x1000, 0x1100, ... in a module up to 0x2000."""

    def __init__(self, tgid: int, world: World) -> None:
        self.tgid = tgid
        self.world = world
        self.generation = world.generation
        self.asked: list[int] = []

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        self.asked.append(address)
        if 0x1000 <= address < 0x2000:
            number, offset = divmod(address - 0x1000, 0x100)
            return f"f{number}.{self.generation}", offset, "/bin/work"
        if 0x2000 <= address < 0x3000:
            return None, address - 0x2000, "/lib/no symbols.so"
        return None, address, "[vdso]" if address < 0x4000 else None

    def close(self) -> None:
        self.world.open.remove(self)


class World:
    """A /proc, and the tables that were made."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.generation = 0
        self.made: list[Table] = []
        self.open: list[Table] = []
        self.symbols = UserSymbols(self.table, proc)

    def table(self, tgid: int) -> Table:
        self.made.append(Table(tgid, self))
        self.open.append(self.made[-1])
        return self.made[-1]

    def runs(self, tgid: int, program: ExecImage, maps: str = MAPS) -> None:
        folder = self.proc / str(tgid)
        folder.mkdir(exist_ok=True)
        fields = ["S"] + ["0"] * 22 + [str(program.start_code), "0", str(program.start_stack), "0"]
        (folder / "stat").write_text(f"{tgid} (a) b) {' '.join(fields)}\n")
        (folder / "maps").write_text(maps)

    def ends(self, tgid: int) -> None:
        shutil.rmtree(self.proc / str(tgid))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_frame_says_as_much_as_is_known(world: World) -> None:
    world.runs(7, ONE)
    frames = world.symbols.frames(7, [0x1234, 0x1310, 0x2040, 0x3040, 0x5000], ONE)
    assert frames == ["f2.0 [work]", "f3.0 [work]", "[no symbols.so]+0x40", "0x3040", "0x5000"]


def test_a_caller_is_the_function_of_the_call_not_of_what_lies_behind_it(world: World) -> None:
    """A call that never returns may be the last of its function: the return address is then another's."""
    world.runs(7, ONE)
    assert world.symbols.frames(7, [0x1100, 0x1100], ONE) == ["f1.0 [work]", "f0.0 [work]"]


def test_any_address_has_a_name(world: World) -> None:
    """A program without frame pointers has anything on its stack."""
    world.runs(7, ONE)
    addresses = [0x1234, 0, 1, 1 << 63, (1 << 64) - 1]
    frames = world.symbols.frames(7, addresses, ONE)
    assert frames == ["f2.0 [work]", *map(hex, addresses[1:])]


def test_an_address_is_looked_up_once(world: World) -> None:
    world.runs(7, ONE)
    for _ in range(3):
        world.symbols.frames(7, [0x1234, 0x1310], ONE)
    assert [table.asked for table in world.made] == [[0x1234, 0x130F]]


def test_a_name_in_no_file_is_looked_up_again(world: World) -> None:
    """Code that is made while running is replaced by other code."""
    world.runs(7, ONE)
    for _ in range(2):
        world.symbols.frames(7, [0x5000], ONE)
    assert [table.asked for table in world.made] == [[0x5000, 0x5000]]


def test_a_process_that_ended_keeps_the_names_that_were_learnt(world: World) -> None:
    """And those that are still to learn: its modules were open."""
    world.runs(7, ONE)
    world.symbols.frames(7, [0x1234], ONE)
    world.ends(7)
    assert world.symbols.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "f4.0 [work]"]


def test_a_process_that_ended_before_it_was_looked_at_has_addresses(world: World) -> None:
    assert world.symbols.frames(7, [0x1234, 0x1310], ONE) == ["0x1234", "0x1310"]
    assert not world.made


def test_a_stack_of_before_an_exec_is_not_named_by_what_came_after(world: World) -> None:
    world.runs(7, OTHER)
    assert world.symbols.frames(7, [0x1234], ONE) == ["0x1234"]
    assert world.symbols.frames(7, [0x1234], OTHER) == ["f2.0 [work]"]
    assert world.symbols.frames(7, [0x1234], ONE) == ["0x1234"]


def test_what_was_learnt_before_an_exec_is_still_true_of_before(world: World) -> None:
    """But the table is not asked any more: it might look at the new program."""
    world.runs(7, ONE)
    world.symbols.frames(7, [0x1234], ONE)
    world.runs(7, OTHER)
    assert world.symbols.frames(7, [0x1234, 0x1410], ONE) == ["f2.0 [work]", "0x1410"]


def test_another_process_of_the_same_number_is_not_taken_for_it(world: World) -> None:
    world.runs(7, ONE)
    world.symbols.frames(7, [0x1234], ONE)
    world.ends(7)
    world.generation = 1
    world.runs(7, OTHER)
    assert world.symbols.frames(7, [0x1234], OTHER) == ["f2.1 [work]"]
    assert len(world.open) == 1


def test_an_exec_while_the_table_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.table

    def table(tgid: int) -> Table:
        world.runs(tgid, OTHER)
        return made(tgid)

    world.runs(7, ONE)
    world.symbols = UserSymbols(table, world.proc)
    assert world.symbols.frames(7, [0x1234], ONE) == ["0x1234"]
    assert not world.open


def test_a_module_that_came_later_is_seen(world: World) -> None:
    world.runs(7, ONE)
    world.symbols.frames(7, [0x1234], ONE)
    world.generation = 1
    world.runs(7, ONE, MAPS + "a000-b000 rw-p 00000000 00:00 0\nc000-d000 r-xp 00000000 00:00 0 [vdso]\n")
    assert world.symbols.frames(7, [0x1234], ONE) == ["f2.0 [work]"]
    world.runs(7, ONE, MAPS + "a000-b000 r-xp 00000000 08:01 78  /lib/late.so\n")
    assert world.symbols.frames(7, [0x1234], ONE) == ["f2.1 [work]"]
    assert len(world.open) == 1


def test_few_tables_are_open_however_many_processes_there_are(world: World) -> None:
    for tgid in range(1, 500):
        world.runs(tgid, ONE)
        assert world.symbols.frames(tgid, [0x1234], ONE) == ["f2.0 [work]"]
        assert len(world.open) <= 8
    world.symbols.close()
    assert not world.open


def test_a_name_is_not_as_long_as_its_maker_likes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "resolve", lambda *_: ("x" * 10_000_000, 0, "/bin/work"))
    world.runs(7, ONE)
    assert len(world.symbols.frames(7, [0x1234], ONE)[0]) < 600


@pytest.mark.parametrize("stat", ["", "7 (a", "7 (a) S 1 2 3", "7 (a) S" + " x" * 40])
def test_what_is_no_stat_is_no_program(tmp_path: Path, stat: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat)
    assert read_image(tmp_path, 7) == ExecImage(0, 0)


def test_the_program_of_this_process_is_where_the_kernel_says() -> None:
    """On the stack that /proc/self/maps has, and in a mapping of code."""
    own = read_image(Path("/proc"), os.getpid())
    stack = next(line for line in Path("/proc/self/maps").read_text().splitlines() if "[stack]" in line)
    begin, end = (int(number, 16) for number in stack.split()[0].split("-"))
    assert begin <= own.start_stack < end
    assert own.start_code
