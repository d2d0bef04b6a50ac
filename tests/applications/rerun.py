"""The same work at a limit, and again at the upper end of the range that `explain` gives for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracer.analysis.results.survivor import Held
from tracer.analysis.trace import AnalysedTrace

MIB: Final = 1 << 20
_FEW_SHARE: Final = 32
_FEW_BYTES: Final = MIB


def drop_from_cache(folder: Path) -> None:
    """Write all files below a directory to the disk, and drop them from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recorded(command: Sequence[str], trace: Path, limit_bytes: int, cwd: Path, files: Path) -> Held:
    """Record a command, whose `files` are not cached, and return how it lived; it must succeed."""
    drop_from_cache(files)
    options = ["-f", "-o", str(trace), "--limit", str(limit_bytes), "--swap", "0"]
    record = [sys.executable, "-m", "tracer", "record", *options, "--", *command]
    ended = subprocess.run(record, cwd=cwd, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = AnalysedTrace(trace)
    assert found.explain() == []
    (one,) = found.held_cgroups()
    return one


def assert_reads_nothing_again_at_the_upper_end(
    command: Sequence[str], trace: Path, limit_bytes: int, cwd: Path, files: Path
) -> tuple[Held, Held]:
    """Record the work at a limit at which it reads much again, and at the limit that its trace suggests.

    Return how it lived at both.
    """
    tight = recorded(command, trace, limit_bytes, cwd, files)
    again = tight.refaulted_bytes or 0
    assert again > 16 * MIB
    _, high = tight.sizing.min_limit_bytes or (None, None)
    assert high is not None, tight.quality.unknown
    wide = recorded(command, trace, high, cwd, files)
    print(
        f"{again / MIB:.1f} MiB at {limit_bytes / MIB:.1f} MiB, at the upper end, "
        f"{high / MIB:.1f} MiB, {(wide.refaulted_bytes or 0) / MIB:.2f} MiB"
    )
    assert (wide.refaulted_bytes or 0) <= max(again // _FEW_SHARE, _FEW_BYTES)
    return tight, wide
