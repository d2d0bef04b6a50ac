"""The terminal on a pty: its modes are restored whatever ends the view, and keys and sizes arrive."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.terminals.on_pty import WITHIN_S, OnPty, on_pty

from tracer.top.screen.terminal import KeyInput


def keys_of(*reads: bytes) -> list[str]:
    keys = KeyInput()
    found = [key for read in reads for key in keys.feed(read)]
    return found + keys.flush()


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["pgup", "pgdn"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~\x1b[7~\x1b[8~", ["home", "end"] * 3),
        (b"\x1b[1;5A\x1b[5;2~", ["up", "pgup"]),
        (b"\r\n\x7f\x08\t", ["enter", "enter", "backspace", "backspace", "tab"]),
        (b"\x1b", ["esc"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
        (b"\x1bx", ["esc", "x"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\x1b[15~\x1b[<0;3;4M\x1b[?62c", []),
        (b"\xff\xfe\x00\x1f", []),
        (b"\x1b[\x07q", ["q"]),
        (b"\x1b[200~", []),
    ],
)
def test_bytes_become_keys(sent: bytes, keys: list[str]) -> None:
    assert keys_of(sent) == keys


PIECES = st.sampled_from(
    [
        b"q",
        b"\x1b[A",
        b"\x1bOB",
        b"\x1b[6~",
        b"\x1b[1;5C",
        "漢".encode(),
        b"\xc3",
        b"\x1b",
        b"[",
        b"\x1b[<0;1M",
    ]
)


@given(st.lists(PIECES).map(b"".join) | st.binary(), st.data())
def test_cuts_between_reads_make_no_difference(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)))))
    reads = [sent[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert keys_of(*reads) == keys_of(sent)


@given(st.binary())
def test_any_bytes_give_printable_or_named_keys_and_leave_little(sent: bytes) -> None:
    keys = KeyInput()
    for key in keys.feed(sent):
        assert key.isprintable()
        assert key
    assert len(keys.flush()) <= 33
    assert not keys.is_pending


def test_sequence_without_an_end_takes_no_memory() -> None:
    keys = KeyInput()
    for _ in range(100):
        keys.feed(b"\x1b[" + b"1" * 1000)
    assert len(keys.flush()) <= 33
    assert keys.feed(b"q") == ["q"]


ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
CHILD = """
import os, select, signal, sys
from tracer.top.screen.terminal import Terminal

def pressed(keys):
    terminal.write("".join(f"<{key}>" for key in keys))
    if "f" in keys:
        terminal.write("x" * 1_000_000)
        print("written", file=sys.stderr, flush=True)
    if "!" in keys:
        raise ValueError("a defect")
    if "q" in keys:
        ended.append(True)

ended = []
woken, wake = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(wake)  # as in the loop of `top`
with Terminal(pressed, lambda: terminal.write(f"<{terminal.size.columns}x{terminal.size.lines}>"),
              lambda: ended.append(True)) as terminal:
    terminal.write("<ready>")
    while not ended:
        for fd in select.select([woken, *terminal.inputs], [], [])[0]:
            terminal.inputs.get(fd, lambda: os.read(woken, 4096))()
"""


@pytest.fixture
def terminal() -> Iterator[OnPty]:
    with on_pty(CHILD) as one:
        yield one


@pytest.fixture
def shell() -> Iterator[OnPty]:
    with on_pty(IN_A_SHELL) as one:
        yield one


def assert_restored(terminal: OnPty) -> None:
    assert terminal.modes == terminal.before
    assert terminal.read.count(LEAVE) == terminal.read.count(ENTER)
    assert terminal.read.rindex(LEAVE) > terminal.read.rindex(ENTER)
    assert terminal.read.rindex(b"\x1b[?25h") > terminal.read.rindex(b"\x1b[?25l")


def test_keys_arrive_at_once_and_without_an_echo(terminal: OnPty) -> None:
    assert not terminal.modes[3] & (termios.ECHO | termios.ICANON)
    terminal.send(b"a\x1b[A")
    terminal.wait_for(b"<a><up>")
    terminal.send("漢".encode()[:1])
    terminal.send("漢".encode()[1:])
    terminal.wait_for("<漢>".encode())
    assert b"\x1b[A" not in terminal.read


def test_lone_escape_is_a_key(terminal: OnPty) -> None:
    terminal.send(b"\x1b")
    terminal.wait_for(b"<esc>")


def test_terminal_is_restored_at_a_regular_end(terminal: OnPty) -> None:
    terminal.send(b"q")
    assert terminal.end() == (0, b"")
    assert_restored(terminal)


def test_terminal_is_restored_before_the_traceback_of_a_defect(terminal: OnPty) -> None:
    terminal.send(b"!")
    status, stderr = terminal.end()
    assert (status, stderr.splitlines()[-1]) == (1, b"ValueError: a defect")
    assert_restored(terminal)


def test_ctrl_c_restores_the_terminal(terminal: OnPty) -> None:
    terminal.child.send_signal(signal.SIGINT)
    status, _ = terminal.end()
    assert status in (1, -signal.SIGINT)
    assert_restored(terminal)


def test_terminal_that_takes_nothing_holds_the_view_up_once_and_is_drawn_anew(terminal: OnPty) -> None:
    terminal.send(b"f")
    assert terminal.child.stderr is not None
    assert terminal.child.stderr.readline() == b"written\n", "nobody has read"
    end_s = time.monotonic() + WITHIN_S
    while b"<80x24>" not in terminal.read:
        terminal.send(b"a")  # the next frame
        assert time.monotonic() < end_s
        while select.select([terminal.master], [], [], 0.1)[0]:
            terminal.read += os.read(terminal.master, 1 << 16)
    assert terminal.read.count(b"x") < 1_000_000
    assert not terminal.modes[0] & termios.IXON


def test_new_size_is_reported(terminal: OnPty) -> None:
    termios.tcsetwinsize(terminal.master, (40, 132))
    terminal.child.send_signal(signal.SIGWINCH)
    terminal.wait_for(b"<132x40>")


def test_stop_gives_the_terminal_back_and_going_on_takes_it_again(terminal: OnPty) -> None:
    """A stop that the kernel refuses to an orphaned process group, as this one, ends at once."""
    terminal.forget()
    terminal.child.send_signal(signal.SIGTSTP)
    terminal.wait_for(LEAVE)
    terminal.wait_for(ENTER)
    terminal.wait_for(b"<80x24>")
    terminal.send(b"q")
    assert terminal.end()[0] == 0
    assert terminal.modes == terminal.before


def test_lost_terminal_ends_the_view(terminal: OnPty) -> None:
    os.close(terminal.master)
    terminal.master, other = pty.openpty()
    os.close(other)
    terminal.child.communicate(timeout=WITHIN_S)
    assert terminal.child.returncode in (0, -signal.SIGHUP)


IN_A_SHELL = f"""
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
def lead():  # before its first key: one that comes earlier would be the shell's
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], preexec_fn=lead)
_, status = os.waitpid(child.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
os.tcsetpgrp(0, os.getpgrp())
print("<stopped>", flush=True)
sys.stdin.readline()
os.tcsetpgrp(0, child.pid)
os.kill(child.pid, signal.SIGCONT)
child.returncode = None
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
"""


def test_ctrl_z_and_fg_of_a_shell(shell: OnPty) -> None:
    """The shell here is a session's leader with this terminal; the view is a job of it."""
    shell.send(b"\x1a")
    shell.wait_for(b"<stopped>")
    assert shell.modes == shell.before
    assert shell.read.rindex(LEAVE) > shell.read.rindex(ENTER)
    shell.forget()
    shell.send(b"fg\n")
    shell.wait_for(ENTER)
    shell.wait_for(b"<80x24>")
    assert not shell.modes[3] & termios.ICANON
    shell.send(b"q")
    assert shell.end()[0] == 0
    assert shell.modes == shell.before
