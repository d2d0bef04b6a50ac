"""The terminal while it shows the view, and the names of its keys.

Its modes are restored, however the view ends.
"""

from __future__ import annotations

import atexit
import codecs
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

from tracer.top.screen.cells import Size

ESCAPE: Final = "esc"

_MOST_PENDING: Final = 32
"""A longer sequence is not a key. Its start is dropped, so that a flood of bytes takes no memory."""

_FINAL: Final = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "M": "enter",
}  # fmt: skip
_NUMBERED: Final = {1: "home", 3: "delete", 4: "end", 5: "pgup", 6: "pgdn", 7: "home", 8: "end"}
_CONTROLS: Final = {
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\t": "tab", "\x0c": "redraw",
    "\x02": "pgup", "\x06": "pgdn", "\x10": "up", "\x0e": "down",
}  # fmt: skip
"""Control character -> key, including the ones of Emacs and less for terminals without arrows."""


class KeyInput:
    """Finds the keys in the bytes of a terminal, however they are split into reads.

    A key is a printable character, or one of: up down left right home end pgup pgdn enter backspace delete
    tab esc redraw. Sequences of other keys and of a mouse are ignored.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    @property
    def is_pending(self) -> bool:
        """Return whether a sequence has begun. If nothing follows soon, it was the key Esc: call `flush`."""
        return bool(self._pending)

    def feed(self, read: bytes) -> list[str]:
        """Return the keys that are complete with these bytes."""
        text = self._pending + self._decoder.decode(read)
        self._pending = ""
        keys: list[str] = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                keys += _plain(text[at])
                at += 1
                continue
            end = _end_of_sequence(text, at)
            if end is None:
                self._pending = text[at:]
                break
            keys += _sequence(text[at:end])
            at = end
        return keys

    def flush(self) -> list[str]:
        """Return the keys of an incomplete sequence: Esc, and the characters after it."""
        pending, self._pending = self._pending, ""
        return [ESCAPE, *(key for one in pending[1:] for key in _plain(one))] if pending else []


def _plain(character: str) -> list[str]:
    if (named := _CONTROLS.get(character)) is not None:
        return [named]
    return [character] if character.isprintable() and character != "\ufffd" else []


def _end_of_sequence(text: str, at: int) -> int | None:
    """Return the end of the sequence that begins with ESC at `at`; None: it is incomplete (ECMA-48, 5.4)."""
    if at + 1 >= len(text):
        return None
    if text[at + 1] == "O":  # SS3: one more character
        return at + 3 if at + 3 <= len(text) else None
    if text[at + 1] != "[":
        return at + 1 if text[at + 1] == "\x1b" else at + 2
    for place in range(at + 2, min(len(text), at + _MOST_PENDING)):
        if "\x40" <= text[place] <= "\x7e":
            return place + 1
        if not "\x20" <= text[place] <= "\x3f":  # not part of a sequence, which ends before it
            return place
    return None if len(text) < at + _MOST_PENDING else at + _MOST_PENDING


def _sequence(text: str) -> list[str]:
    """Return the keys of a complete sequence, if any. Shift, Ctrl and Alt make no difference."""
    if text == "\x1b":
        return [ESCAPE]
    if text[1] not in "[O":
        return [ESCAPE, *_plain(text[1])]
    last, numbers = text[-1], text[2:-1].split(";")
    if last == "~":
        named = _NUMBERED.get(int(numbers[0])) if numbers[0].isdecimal() and numbers[0].isascii() else None
    else:
        named = _FINAL.get(last) if all(one == "" or one.isdecimal() for one in numbers) else None
    return [] if named is None else [named]


_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The sequences for: alternate screen, no cursor, no wrap at the end of a line, clear."""
_LEAVE: Final = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR: Final = b"\x1b[0m\x1b[2J"
_ESCAPE_WAIT_S: Final = 0.05
"""The longest wait for the rest of a sequence, even over a slow line. An ESC alone is the key Esc."""
_WRITE_WAIT_MS: Final = 1000
_CC: Final = 6
_DISABLED: Final = b"\x00"


class Terminal:
    """Standard input and output as a screen and its keys.

    An event loop calls the functions of `inputs` when their descriptors are readable. The interpreter wakes
    it at a signal (`tracer.capture.loop.Loop`). `pressed` is called with the keys that were read. `resized`
    is called when the screen has another size or must be redrawn, as after Ctrl-Z and `fg`. `lost` is called
    if the terminal is gone.

    Ctrl-C and Ctrl-Z remain signals. Ctrl-\\ is off, because it would end the process without restoring the
    terminal. Ctrl-S is off, because it would stop the screen for no visible reason.
    """

    def __init__(
        self,
        pressed: Callable[[list[str]], object],
        resized: Callable[[], object],
        lost: Callable[[], object],
        *,
        input_fd: int = 0,
        output_fd: int = 1,
    ) -> None:
        self._pressed, self._resized, self._lost = pressed, resized, lost
        self._in, self._out = input_fd, _without_waiting(output_fd)
        self._keys = KeyInput()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers: dict[int, Any] = {}
        self._modes: list[Any] | None = None
        self._is_on = self._is_stalled = False

    def __enter__(self) -> Self:
        self._modes = termios.tcgetattr(self._in)
        atexit.register(self.leave)  # in case __exit__ does not run
        for number, handler in (
            (signal.SIGWINCH, self._signalled),
            (signal.SIGCONT, self._signalled),
            (signal.SIGTSTP, self._stopped),
            (signal.SIGTTOU, signal.SIG_IGN),  # to restore the modes even in the background
        ):
            self._handlers[number] = signal.signal(number, handler)
        self._enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        atexit.unregister(self.leave)
        for descriptor in (self._woken, self._wake, self._out):
            os.close(descriptor)

    @property
    def inputs(self) -> Mapping[int, Callable[[], object]]:
        """Return the descriptors to wait for, each with the function to call while it is readable."""
        return {self._in: self._read, self._woken: self._awake}

    @property
    def size(self) -> Size:
        """Return the size of the screen; 80 x 24 if the terminal does not report it."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            return Size(80, 24)
        return Size(columns or 80, lines or 24)

    def write(self, text: str) -> None:
        """Write to the screen, in UTF-8.

        The recording must go on: text that the terminal does not take within a second is discarded, and so is
        later text until the terminal takes some again. Then `resized` is called.
        """
        left = memoryview(text.encode("utf-8", "replace"))
        poll = select.poll()
        poll.register(self._out, select.POLLOUT)
        while left and self._is_on:
            if not poll.poll(0 if self._is_stalled else _WRITE_WAIT_MS):
                self._is_stalled = True
                return
            if self._is_stalled:
                self._is_stalled = False
                self._signalled(0, None)  # redraw: the contents of the screen are not known
            try:
                left = left[os.write(self._out, left[:4096]) :]
            except BlockingIOError:
                continue
            except OSError:
                self._lost()
                return

    def clear(self) -> None:
        """Clear the screen."""
        self.write(_CLEAR.decode())

    # Modes

    def _enter(self) -> None:
        assert self._modes is not None
        modes = [*self._modes[:_CC], [*self._modes[_CC]]]
        modes[tty.IFLAG] &= ~termios.IXON
        modes[tty.LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
        modes[_CC][termios.VMIN], modes[_CC][termios.VTIME] = 1, 0
        modes[_CC][termios.VQUIT] = _DISABLED
        termios.tcsetattr(self._in, termios.TCSADRAIN, modes)
        self._is_on = True
        self._send(_ENTER)

    def leave(self) -> None:
        """Restore the terminal. Text that is written later is discarded. A second call does nothing."""
        if self._is_on:
            self._is_on = False
            self._send(_LEAVE)
            with suppress(termios.error, OSError):  # the terminal may be gone
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._modes or [])

    def _send(self, sequence: bytes) -> None:
        with suppress(OSError):
            os.write(self._out, sequence)

    # Signals

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(self._wake, b"w")

    def _stopped(self, number: int, _frame: FrameType | None) -> None:
        """Restore the terminal and stop, as Ctrl-Z asks. After SIGCONT, enter the screen again."""
        was_on = self._is_on
        self.leave()
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        signal.signal(number, self._stopped)
        if not was_on:
            return
        with suppress(termios.error, OSError):
            self._modes = termios.tcgetattr(self._in)  # the shell may have changed the modes
            self._enter()
        self._signalled(number, None)

    def _awake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        self._resized()

    # Keys

    def _read(self) -> None:
        """Read the bytes of the terminal. After an ESC, wait for the rest of its sequence, at most 50 ms."""
        try:
            read = os.read(self._in, 4096)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        if not read:
            self._lost()
            return
        keys = self._keys.feed(read)
        end_s = time.monotonic() + _ESCAPE_WAIT_S
        while self._keys.is_pending:
            wait_s = end_s - time.monotonic()
            if wait_s <= 0 or not select.select([self._in], [], [], wait_s)[0]:
                keys += self._keys.flush()
            elif more := os.read(self._in, 4096):
                keys += self._keys.feed(more)
            else:
                keys += self._keys.flush()
        if keys:
            self._pressed(keys)


def _without_waiting(output_fd: int) -> int:
    """Return a descriptor of the same terminal on which writes do not wait.

    The terminal is opened again, because other processes share the flag O_NONBLOCK of `output_fd`. If that
    fails, as without a /dev, writes may wait for a terminal that takes nothing.
    """
    try:
        return os.open(os.ttyname(output_fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return os.dup(output_fd)
