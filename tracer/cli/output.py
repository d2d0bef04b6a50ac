"""Files that a verb writes: whole or not at all, never over another by mistake, and for their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tracer.errors import TracerError, UsageError


def check_output(output: Path, force: bool) -> None:
    """Says at once what would only fail after the work."""
    try:
        mode = output.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{output} is a directory: name a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # /dev/null must not become a page
        raise UsageError(f"{output} is a device or a pipe, which a file would replace: name a file")
    if not force:
        raise TracerError(f"{output} exists: name another file, or replace it with -f")


def write_output(output: Path, pieces: Iterable[str]) -> None:
    """All of the text or nothing. Names of processes and cgroups are in it: only its owner can read it."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(pieces)
        temporary.replace(output)
    except OSError as error:
        raise TracerError(f"cannot write {output}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
