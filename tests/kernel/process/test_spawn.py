from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.process import spawn as spawn_module
from tracer.kernel.process.spawn import CommandError, spawn


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Return a directory in place of a cgroup: only the move into a cgroup needs the kernel."""
    return tmp_path


def show(file: Path, what: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys; open({str(file)!r}, 'w').write({what})"]


def test_command_before_release_does_not_run(plain: Path) -> None:
    command = spawn(plain, show(plain / "out", "'ran'"))
    assert (plain / "cgroup.procs").read_text() == str(command.process.pid)
    assert not (plain / "out").exists()
    command.release()
    assert command.process.wait() == 0
    assert (plain / "out").read_text() == "ran"


def test_command_is_same_process_without_our_descriptors(plain: Path) -> None:
    what = "f'{os.getpid()} {len(os.listdir(\"/proc/self/fd\"))}'"
    command = spawn(plain, show(plain / "out", what))
    command.release()
    command.process.wait()
    # 0, 1, 2, the output file and the listing itself.
    assert (plain / "out").read_text() == f"{command.process.pid} 5"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_command_arguments_and_environment_are_unchanged(
    plain: Path, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument = os.fsdecode(b"\xff \n\xc3\xa9")
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("ODD", os.fsdecode(b"\xfe=\n"))
    monkeypatch.delenv("LC_CTYPE", raising=False)
    script = 'printf "%s|%s|%s" "$1" "$ODD" "${LC_CTYPE-unset}" > "$2"'
    command = spawn(plain, ["/bin/sh", "-c", script, "sh", argument, str(plain / "out")])
    command.release()
    command.process.wait()
    assert (plain / "out").read_bytes() == b"\xff \n\xc3\xa9|\xfe=\n|unset"


def test_command_ignores_no_signal(plain: Path) -> None:
    command = spawn(
        plain, ["/bin/sh", "-c", 'grep SigIgn /proc/self/status > "$1"', "sh", str(plain / "out")]
    )
    command.release()
    command.process.wait()
    ignored = int((plain / "out").read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


@pytest.mark.parametrize(
    ("program", "mode", "status", "expected"),
    [
        ("no-such-command", None, 127, "command not found"),
        ("./missing", None, 127, "command not found"),
        ("/dev/null/x", None, 127, "command not found"),
        ("/etc", None, 126, "Permission denied"),
        ("plain-file", 0o644, 126, "Permission denied"),
        ("no-magic", 0o755, 126, "Exec format error"),
    ],
)
def test_release_impossible_command_raises_with_shell_status(
    plain: Path, program: str, mode: int | None, status: int, expected: str
) -> None:
    if mode is not None:
        (plain / program).write_text("neither a script nor a binary\n")
        (plain / program).chmod(mode)
        program = str(plain / program)
    command = spawn(plain, [program])
    with pytest.raises(CommandError, match=expected) as caught:
        command.release()
    assert caught.value.exit_code == status
    assert command.process.returncode is not None


def test_abandon_command_never_runs(plain: Path) -> None:
    command = spawn(plain, show(plain / "out", "'ran'"))
    command.abandon()
    assert command.process.returncode == 1
    assert not (plain / "out").exists()


def test_abandon_after_release_closes_no_other_descriptor(plain: Path) -> None:
    command = spawn(plain, ["true"])
    command.release()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]  # they get the numbers that were freed
    command.abandon()
    for descriptor in others:
        os.close(descriptor)
    assert command.process.returncode == 0


def test_command_of_dead_recorder_never_runs(plain: Path) -> None:
    script = (
        "import os, sys, pathlib; from tracer.kernel.process.spawn import spawn; "
        "c = spawn(pathlib.Path(sys.argv[1]), ['touch', sys.argv[1] + '/out']); "
        "print(c.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    recorder = subprocess.run([sys.executable, "-c", script, str(plain)], capture_output=True, check=False)
    assert recorder.returncode == -9
    await_gone(int(recorder.stdout))
    assert not (plain / "out").exists()


def test_release_killed_command_raises(plain: Path) -> None:
    command = spawn(plain, ["true"])
    command.process.kill()
    command.process.wait()
    with pytest.raises(CommandError, match="ended before it could run"):
        command.release()


def test_spawn_in_missing_cgroup_raises(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TracerError, match="cannot put a process into"):
        spawn(tmp_path / "gone", ["true"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.kernel
@pytest.mark.vm
def test_cgroup_before_release_is_charged_nothing(memcg: Path) -> None:
    usage = memcg / "memory.usage_in_bytes"
    usage = usage if usage.exists() else memcg / "memory.current"
    command = spawn(memcg, ["true"])
    assert int(usage.read_text()) == 0
    command.release()
    assert command.process.wait() == 0


@pytest.mark.kernel
def test_command_and_children_are_in_cgroup(memcg: Path, tmp_path: Path) -> None:
    command = spawn(memcg, ["sh", "-c", f"cat /proc/self/cgroup > {tmp_path}/out"])
    command.release()
    assert command.process.wait() == 0
    assert f"/{memcg.name}\n" in (tmp_path / "out").read_text()


def await_gone(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 10)[0], "the process is still there"
    finally:
        os.close(pidfd)


@pytest.mark.alone
@pytest.mark.parametrize("nice", [0, 3])
def test_command_has_priority_of_caller(plain: Path, nice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command has it also if its gate had a head start."""
    preferred: list[int] = []
    await_ready = spawn_module._await_ready

    def look(command: spawn_module.GatedCommand) -> None:
        preferred.append(os.getpriority(os.PRIO_PROCESS, command.process.pid))
        await_ready(command)

    monkeypatch.setattr(spawn_module, "_await_ready", look)
    what = "repr((os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)))"
    nicely = ["nice", "-n", str(nice)]
    command = spawn(plain, [*nicely, *show(plain / "out", what)])
    command.release()
    command.process.wait()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert (plain / "out").read_text() == repr((min(ours + nice, 19), os.SCHED_OTHER))
    if os.geteuid() == 0 and ours == 0:
        assert preferred == [-10]
