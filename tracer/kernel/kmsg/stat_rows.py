"""The rows of memory.stat in an OOM report, collected line by line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tracer.kernel.kmsg.report import memory_lines
from tracer.kernel.kmsg.report.log_report import MemoryStat
from tracer.kernel.kmsg.text.log_record import Record, Stamp

# Before 5b42360c73b0 ("memcg: use seq_buf_do_printk() with mem_cgroup_print_oom_meminfo()"), v6.5, all of
# memory.stat is one message of several lines. The kernel cuts a message at 1024 characters minus the room for
# a prefix, which differs by release (LOG_LINE_MAX, kernel/printk/printk.c). A reader that uses syslog(2) gets
# each line with a prefix, and as many whole lines as fit (record_print_text).
_CUT_MESSAGE: Final = range(960, 1025)
_CUT_LINES: Final = range(940, 1031)
_PREFIX: Final = 19  # characters of a prefix such as <6>[12345.678901]


@dataclass(slots=True)
class StatRows:
    """memory.stat of one cgroup, collected line by line; `printed` is the line that names the cgroup."""

    printed: MemoryStat
    values: dict[str, int]
    first: Stamp | None = None
    last: Stamp | None = None
    last_name: str = ""
    rows: int = 0
    characters: int = 0
    has_prefix: bool = False

    def take(self, record: Record) -> bool:
        """Add a row; return False for any other line."""
        row = memory_lines.stat(record.text)
        if row is None:
            return False
        self.first = record.stamp if self.first is None else self.first
        self.last, self.has_prefix = record.stamp, record.prefix > 0
        self.last_name, self.values[row[0]] = row
        self.rows += 1
        self.characters += len(record.text) + 1
        return True

    def result(self) -> MemoryStat:
        """Return the values, without the last one if the kernel may have cut the message within its
        number."""
        if self.first is None or self.last is None:
            return self.printed
        values = self.values
        is_one_line_each = self.first.line != self.last.line and self.has_prefix
        if is_one_line_each:
            is_one_message = replace(self.last, line=self.first.line) == self.first
            is_cut = is_one_message and self.characters + self.rows * _PREFIX in _CUT_LINES
        else:
            is_cut = self.characters in _CUT_MESSAGE
            if is_cut:
                values = {name: value for name, value in values.items() if name != self.last_name}
        return replace(self.printed, values=values, is_cut=is_cut)
