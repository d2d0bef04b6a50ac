"""The options of Node.js that a process has in its environment: NODE_OPTIONS, for V8's heap.

Nothing else of the environment is kept: it may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.process.resident import environment

KIND: Final = "node"
_VARIABLE: Final = b"NODE_OPTIONS="
_OPTION: Final = re.compile(
    rb"(?:^| )(--max[-_](?:old|semi)[-_]space[-_]size[= ]\d{1,9}|--perf[-_]basic[-_]prof)(?= |$)"
)
_MOST_BYTES: Final = 1 << 20
_MOST_OPTIONS: Final = 16


def shown(process: Path) -> Iterator[Shown]:
    """Yield the options of a process (a directory of /proc) as one text; nothing if it has none."""
    with suppress(OSError):
        if options := parse_environment(environment(process, _MOST_BYTES)):
            yield Shown(KIND, "options", text=" ".join(options))


def parse_environment(text: bytes) -> list[str]:
    """Return the options for V8's heap and for names of functions in NODE_OPTIONS, in their order."""
    for entry in text.split(b"\0"):
        if entry.startswith(_VARIABLE):
            found = _OPTION.findall(b" ".join(entry.removeprefix(_VARIABLE).split()))
            return [option.decode("ascii") for option in found[-_MOST_OPTIONS:]]
    return []
