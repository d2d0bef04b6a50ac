"""One message of the kernel, with its time, its host, and its place in the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

MOST_CHARACTERS: Final = 1 << 14
"""The longest line or message that is read; the rest is ignored. The kernel cuts a message at about 1000
characters (LOG_LINE_MAX, kernel/printk/printk.c)."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time of a line, and its place in the log.

    `since_boot_ns` is the time by printk's clock (close to CLOCK_MONOTONIC, but another clock). `wall` is the
    date and time that a log daemon or `dmesg -T` wrote before the line, as text. `line` counts from 1.
    """

    line: int
    since_boot_ns: int | None = None
    wall: str | None = None


class Record(NamedTuple):
    """One message of the kernel.

    `prefix` is the number of characters before the text; a record with prefix 0 may continue the record
    before it. `caller` is `T123` for a task and `C1` for a CPU in an interrupt (CONFIG_PRINTK_CALLER). `host`
    and `caller` are None if the log does not name them. `is_raw` marks a record of /dev/kmsg: its
    continuation lines are also escaped. `is_row`: the whole text is a row of memory.stat or of the table of
    tasks, or a frame of a call trace (`styles.row`), so it has no words of another line of a report.
    """

    stamp: Stamp
    text: str
    host: str | None = None
    caller: str | None = None
    prefix: int = 0
    is_raw: bool = False
    is_row: bool = False

    def continued(self, text: str) -> Record:
        """Return the record with one more line, without the indent that dmesg and journalctl give it."""
        return self.with_text(f"{self.text}\n{text.removeprefix(' ' * self.prefix)}")

    def is_indented(self, text: str) -> bool:
        """Return whether a line without a prefix has the indent that dmesg and journalctl give to further
        lines of this message."""
        return self.prefix > 0 and text.startswith(" " * self.prefix)

    def with_text(self, text: str) -> Record:
        """Return a copy with another text."""
        return self._replace(text=text)
