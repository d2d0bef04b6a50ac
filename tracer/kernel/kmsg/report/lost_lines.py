"""The lines that state how much of a log is missing: reports that were not printed, and lost lines."""

from __future__ import annotations

import re
from typing import Final

_SUPPRESSED: Final = re.compile(
    r"(?:oom_kill_process|dump_header|out_of_memory): (\d{1,9}) (?:callbacks|messages) suppressed"
)
_DROPPED: Final = re.compile(
    r"\*\* (\d{1,9}) printk messages? dropped|systemd-journald\[\d{1,10}\]: Missed (\d{1,9}) kernel message"
)


def suppressed(text: str) -> int | None:
    """Return the number of reports that the rate limit of oom_kill_process (mm/oom_kill.c) suppressed; None
    for any other line."""
    found = _SUPPRESSED.match(text)
    return None if found is None else int(found[1])


def dropped(text: str) -> int | None:
    """Return the number of lines that the kernel or the journal reports as lost; None for any other line."""
    found = _DROPPED.search(text)
    return None if found is None else int(found[1] or found[2])
