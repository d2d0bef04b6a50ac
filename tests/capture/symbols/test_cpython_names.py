"""Names of frames of CPython: tables of lines, and real interpreters that grow in known functions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracer
from tracer.capture.symbols import cpython_names
from tracer.capture.symbols.address_names import ExecImage, read_image
from tracer.capture.symbols.cpython_names import CodePlace, PythonFrames, line_of, shown_file
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.process.cpython import NotReadError, find_interpreter
from tracer.kernel.process.live_memory import Memory
from tracer.stored_names import NAMELESS_PYTHON, stored_text

MIB = 1 << 20
ROWS, PARSED = 700, 300
"""KiB by which the two functions of the program grow in turns."""
PROGRAM = f"""
import sys
kept = []
def load_rows():
    kept.append(b"x" * ({ROWS} << 10))
def parse(size): kept.append(
    b"y" * size)
def main(turns):
    for _ in range(turns):
        load_rows()
        parse({PARSED} << 10)
main(8)
for line in sys.stdin:
    main(int(line))
    print("ready", flush=True)
"""


def interpreters() -> list[Path]:
    """Return interpreters of the supported versions on this machine, each file once."""
    places = [Path(sys.base_prefix, "bin"), Path("/usr/bin"), *Path.home().glob(".pyenv/versions/*/bin")]
    found = {
        path.resolve(): None
        for folder in places
        for version in (11, 12, 13, 14, 15)
        if (path := folder / f"python3.{version}").exists()
    }
    return [*found]


def codes_of(code: CodeType) -> list[CodeType]:
    inner = [one for const in code.co_consts if isinstance(const, CodeType) for one in codes_of(const)]
    return [code, *inner]


@pytest.mark.parametrize("path", ["subprocess.py", "dataclasses.py"])
def test_lines_equal_those_of_the_interpreter(path: str) -> None:
    """The first and the last instruction of each entry in the tables of real modules, with calls over
    several lines, loops and exceptions."""
    source = Path(os.__file__).with_name(path).read_text()
    compared = 0
    for code in codes_of(compile(source, path, "exec")):
        for begin, end, line in code.co_lines():
            for offset in {begin, end - 2}:
                assert line_of(code.co_linetable, code.co_firstlineno, offset) == line
                compared += 1
    assert compared > 1000


@given(st.binary(max_size=80), st.integers(0, 10_000), st.integers(0, 10_000))
def test_any_table_of_lines_is_read_to_an_end(table: bytes, first_line: int, offset: int) -> None:
    line = line_of(table, first_line, offset)
    assert line is None or isinstance(line, int)


def test_process_without_python_has_no_interpreter() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            memory = Memory(process.pid)
            assert find_interpreter(process.pid, memory) is None
            memory.close()
        finally:
            process.kill()


@pytest.mark.parametrize("address", [0, 1, 1 << 63, (1 << 64) - 8, 0x1000])
def test_memory_that_is_not_mapped_is_refused(address: int) -> None:
    memory = Memory(os.getpid())
    with pytest.raises(OSError):
        memory.read(address, 8)
    memory.close()


def test_object_that_is_no_code_has_no_name() -> None:
    """An address may hold another object by the time that it is named."""
    memory = Memory(os.getpid())
    code, other = test_object_that_is_no_code_has_no_name.__code__, [1, 2]
    assert cpython_names._is_code(memory, id(code))
    assert not cpython_names._is_code(memory, id(other))
    memory.close()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/srv/app/app.py", "app.py"),
        ("app.py", "app.py"),
        ("/usr/lib/python3/dist-packages/numpy/core/numeric.py", "numpy/core/numeric.py"),
        ("/opt/venv/lib/python3.12/site-packages/pandas/io/parsers.py", "pandas/io/parsers.py"),
        ("/opt/venv/lib/python3.12/site-packages/six.py", "site-packages/six.py"),
        ("/usr/lib/python3.13/json/decoder.py", "python3.13/json/decoder.py"),
        ("/root/.pyenv/versions/3.13.1t/lib/python3.13t/csv.py", "python3.13t/csv.py"),
        ("/home/a/site-packages-of-mine/x.py", "x.py"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
    ],
)
def test_file_of_a_library_is_shown_with_its_folder(path: str, shown: str) -> None:
    assert shown_file(path) == shown


TEXTS = ("load_rows", "größe", "Ωmega", "snake_\N{SNAKE}", "x" * 300)


@pytest.mark.beside
@pytest.mark.kernel
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_names_of_any_alphabet_are_read(python: Path) -> None:
    script = f"import ctypes, sys\ntexts = {TEXTS!r}\nprint(*map(id, texts), flush=True)\nsys.stdin.read()\n"
    command = [str(python), "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            addresses = [int(word) for word in process.stdout.readline().split()]
            memory = Memory(process.pid)
            found = cpython_names._Process(ExecImage(0, 0), find_interpreter(process.pid, memory), memory)
            read = [cpython_names._text(found, address) for address in addresses]
            memory.close()
        finally:
            process.kill()
    assert read == [stored_text(text[:200]) for text in TEXTS]


class NoMap:
    """The map `pythons`, which takes no program."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("there is no interpreter")


class Programs:
    def map(self, name: str) -> NoMap:
        assert name == "pythons"
        return NoMap()


def test_process_that_is_gone_has_frames_without_names() -> None:
    frames = PythonFrames(Programs(), print)  # type: ignore[arg-type]
    image = ExecImage(1, 2)
    assert frames.read((1 << 22) + 1, image, [CodePlace(64, 5, 8)]).above(["malloc [libc.so.6]"]) == [
        "malloc [libc.so.6]",
        NAMELESS_PYTHON,
    ]
    frames.close()


def test_process_that_ended_keeps_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the next 64 processes, or for as long as a recorder is at rest, each would have one."""
    monkeypatch.setattr(cpython_names, "find_interpreter", lambda *_: None)

    def memories() -> set[str]:
        links = set()
        for one in [*Path("/proc/self/fd").iterdir()]:
            with suppress(FileNotFoundError):  # that of the listing
                links.add(str(one.readlink()))
        return links

    def program() -> subprocess.Popen[bytes]:
        """Start one that runs already: `Popen` may return while exec(2) still changes the image."""
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"runs\n")
        assert process.stdout.readline() == b"runs\n"
        return process

    with program() as ending, program() as other:
        frames = PythonFrames(Programs(), print)  # type: ignore[arg-type]
        for process in (ending, other):
            frames.consider(process.pid, read_image(Path("/proc"), process.pid))
        ending.kill()
        ending.wait()
        opened = {f"/proc/{ending.pid}/mem", f"/proc/{other.pid}/mem"}
        assert opened <= memories()
        frames.free_ended()
        assert opened & memories() == {f"/proc/{other.pid}/mem"}
        frames.close()
        other.kill()


def test_python_that_is_not_read_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotReadError("frames of CPython 3.14 are not read")

    lines: list[str] = []
    monkeypatch.setattr(cpython_names, "find_interpreter", refuse)
    frames = PythonFrames(Programs(), lines.append)  # type: ignore[arg-type]
    own = read_image(Path("/proc"), os.getpid())
    with subprocess.Popen(["sleep", "60"]) as other:
        for tgid in (os.getpid(), other.pid):
            frames.consider(tgid, read_image(Path("/proc"), tgid))
        other.kill()
    assert lines == ["frames of CPython 3.14 are not read"]
    assert frames.read(os.getpid(), own, [CodePlace(64, 5, 8)]).above([]) == [NAMELESS_PYTHON]
    frames.close()


@pytest.mark.beside
@pytest.mark.kernel
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_functions_that_grow_are_named_with_their_lines(
    python: Path, start_recorder: Callable[..., Any], tmp_path: Path
) -> None:
    """The first samples show that it is Python; the frames of later ones are read."""
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    with ephemeral_cgroup("test", 1 << 30, 0) as memcg:
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        command = ["sh", "-c", enter, str(python), "-S", str(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                given, ready = process.stdin, process.stdout
                assert given is not None and ready is not None

                def grow(turns: int) -> None:
                    given.write(f"{turns}\n")
                    given.flush()
                    assert ready.readline() == "ready\n"

                grow(8)
                recorder.wait_for(lambda: "[app.py:" in str(named(tracer.open(recorder.path), grow)))
                known = sum(named(tracer.open(recorder.path), None).values())
                grow(120)
                recorder.wait_for(
                    lambda: sum(named(tracer.open(recorder.path), None).values()) > known + 110 * MIB
                )
                trace = tracer.open(recorder.stop())
            finally:
                process.kill()
    weights = named(trace, None)
    rows = sum(weight for frames, weight in weights.items() if "load_rows [app.py:5]" in frames)
    parsed = sum(weight for frames, weight in weights.items() if "parse [app.py:7]" in frames)
    share = ROWS / (ROWS + PARSED)
    samples = (rows + parsed) / (256 << 10)
    assert abs(rows / (rows + parsed) - share) < 5 * (share * (1 - share) / samples) ** 0.5
    callers = {frames[frames.index("load_rows [app.py:5]") + 1] for frames in weights if rows_in(frames)}
    assert callers == {"main [app.py:10]"}


MAKING = """
import sys
kept = []
for line in sys.stdin:
    name, size = line.split()
    source = f"kept.append(bytearray(b'x') * ({size} << 20))"
    made = compile(source, f"/srv/{name}", "exec")
    exec(made)
    print(id(made), flush=True)
    sys.stdin.readline()
    del made
"""


@pytest.mark.beside
@pytest.mark.kernel
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_code_at_the_place_of_code_that_was_freed_has_its_own_name(
    python: Path, start_recorder: Callable[..., Any], tmp_path: Path
) -> None:
    """Cells of a notebook, which differ in the name of their file: the last character of it."""
    program = tmp_path / "app.py"
    program.write_text(MAKING)
    sizes = {"cell-1": 20, "cell-2": 5, "cell-3": 17, "cell-4": 8}
    with ephemeral_cgroup("test", 1 << 30, 0) as memcg:
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        command = ["sh", "-c", enter, str(python), "-S", str(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                given, made = process.stdin, process.stdout
                assert given is not None and made is not None

                def execute(name: str, size_mib: int) -> int:
                    given.write(f"{name} {size_mib}\n")
                    given.flush()
                    return int(made.readline())

                def free() -> None:
                    given.write("\n")
                    given.flush()

                def weights() -> Counter[str]:
                    named = Counter[str]()
                    for frames, weight in weighed(tracer.open(recorder.path)).items():
                        named.update({one: weight for one in frames if "[cell-" in one})
                    return named

                def warmed() -> bool:
                    execute("cell-0", 4)
                    free()
                    return bool(weights())

                recorder.wait_for(warmed)
                addresses = []
                for name, size_mib in sizes.items():
                    addresses.append(execute(name, size_mib))
                    recorder.wait_for(lambda name=name: weights()[f"<module> [{name}:1]"])
                    free()
                recorder.stop()
            finally:
                process.kill()
    assert len({*addresses}) < len(sizes)
    found = weights()
    for name, size_mib in sizes.items():
        assert abs(found[f"<module> [{name}:1]"] - size_mib * MIB) <= MIB


def test_fingerprint_tells_code_from_other_code_and_from_itself_later() -> None:
    """The first two differ in nothing but the name of the file."""
    memory = Memory(os.getpid())
    interpreter = find_interpreter(os.getpid(), memory)
    assert interpreter is not None
    first, second = (compile("f = 1", f"/srv/cell-{number}", "exec") for number in (1, 2))
    third = first.replace(co_name="other")

    def fingerprint(code: CodeType) -> int:
        return cpython_names._fingerprint(interpreter.offsets, memory, id(code))

    before = [*map(fingerprint, (first, second, third))]
    assert len({*before}) == 3
    for _ in range(100):
        exec(first)
    assert [*map(fingerprint, (first, second, third))] == before
    process = cpython_names._Process(ExecImage(0, 0), interpreter, memory)
    read = cpython_names._code_object(process, id(first), before[0])
    assert read == ("cell-1", "<module>", 1, first.co_linetable)
    assert cpython_names._code_object(process, id(first), before[1]) is None
    memory.close()


@pytest.mark.beside
@pytest.mark.kernel
def test_frames_of_forked_children_are_read_from_their_first_sample(
    start_recorder: Callable[..., Any], tmp_path: Path
) -> None:
    """They have the interpreter of their parent, at the same place. Each child grows at once."""
    program = tmp_path / "app.py"
    program.write_text(FORKING)
    children = 5
    with ephemeral_cgroup("test", 1 << 30, 0) as memcg:
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        command = ["sh", "-c", enter, sys.executable, "-S", str(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                given, ready = process.stdin, process.stdout
                assert given is not None and ready is not None

                def go_on(turns: int) -> None:
                    given.write(f"{turns}\n")
                    given.flush()
                    assert ready.readline() == "ready\n"

                go_on(8)
                recorder.wait_for(lambda: "[app.py:" in str(named(tracer.open(recorder.path), go_on)))

                def are_sampled() -> bool:
                    go_on(-12)  # one that grew while nothing was traced has no sample
                    return sampled_in(tracer.open(recorder.path), process.pid)[0] >= children

                recorder.wait_for(are_sampled)
                trace = tracer.open(recorder.stop())
            finally:
                process.kill()
    _, sampled, read = sampled_in(trace, process.pid)
    assert sampled > children * 8 * MIB
    assert read > 0.9 * sampled


FORKING = """
import os, sys
kept, lives = [], os.pipe()
def grow(turns):
    kept.extend(b"x" * (1 << 20) for _ in range(turns))
for line in sys.stdin:
    turns = int(line)
    if turns < 0:
        reading, writing = os.pipe()
        if not os.fork():
            grow(-turns)
            os.write(writing, b".")
            os.close(lives[1])
            os.read(lives[0], 1)  # until the parent ends
            os._exit(0)
        os.read(reading, 1)
    else:
        grow(turns)
    print("ready", flush=True)
"""


def sampled_in(trace: Any, parent: int) -> tuple[int, int, int]:
    """Return the number of processes besides `parent` with samples of named stacks, the bytes of these, and
    those with frames of Python."""
    frames_of = dict(zip(trace.stacks["stack_id"], map(str, trace.stacks["frames"]), strict=True))
    rows = trace.code_samples
    rows = rows[(rows["tgid"] != parent) & (rows["category"] == "anon") & rows["stack_id"].isin(frames_of)]
    is_read = rows["stack_id"].map(lambda one: "[app.py:" in frames_of[one]).astype(bool)
    return rows["tgid"].nunique(), int(rows["bytes"].sum()), int(rows["bytes"][is_read].sum())


@pytest.mark.beside
@pytest.mark.kernel
def test_thread_behind_many_others_has_no_frames_of_another(
    start_recorder: Callable[..., Any], tmp_path: Path
) -> None:
    """The main thread is the last of the list, behind more threads than are looked at."""
    program = tmp_path / "app.py"
    program.write_text(
        "import sys, time, _thread\n"
        "kept = []\n"
        "def idle(): time.sleep(600)\n"
        "def load(turns): kept.extend(b'x' * (1 << 20) for _ in range(turns))\n"
        "for line in sys.stdin:\n"
        "    for _ in range(600 * (line == 'threads\\n')): _thread.start_new_thread(idle, ())\n"
        "    load(100 if line == 'threads\\n' else int(line))\n"
        "    print('ready', flush=True)\n"
    )
    with ephemeral_cgroup("test", 1 << 30, 0) as memcg:
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        command = ["sh", "-c", enter, sys.executable, "-S", str(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                given, ready = process.stdin, process.stdout
                assert given is not None and ready is not None

                def grow(turns: int | str) -> None:
                    given.write(f"{turns}\n")
                    given.flush()
                    assert ready.readline() == "ready\n"

                grow(8)
                recorder.wait_for(lambda: "load [app.py:" in str(named(tracer.open(recorder.path), grow)))
                grow("threads")
                trace = tracer.open(recorder.stop())
            finally:
                process.kill()
    assert trace.code_samples["bytes"].sum() > 90 * MIB
    weights = named(trace, None)
    idle = sum(weight for frames, weight in weights.items() if "idle [app.py:3]" in frames)
    assert idle < 30 * MIB  # the first pages of the stacks of 600 threads, and no memory of the main thread


def rows_in(frames: tuple[str, ...]) -> bool:
    return "load_rows [app.py:5]" in frames


def named(trace: Any, grow: Callable[[int], None] | None) -> Counter[tuple[str, ...]]:
    """Return stack -> bytes of the samples that have frames of the program; let it grow if there are none."""
    weights = weighed(trace)
    of_program = {frames: weights[frames] for frames in weights if any("[app.py:" in one for one in frames)}
    if grow is not None and not of_program:
        grow(4)
    return Counter(of_program)


def weighed(trace: Any) -> Counter[tuple[str, ...]]:
    """Return stack -> bytes of the samples."""
    frames_of = dict(zip(trace.stacks["stack_id"], map(tuple, trace.stacks["frames"]), strict=True))
    weights: Counter[tuple[str, ...]] = Counter()
    for stack_id, weight in zip(trace.code_samples["stack_id"], trace.code_samples["bytes"], strict=True):
        weights[frames_of.get(stack_id, ())] += weight
    return weights
