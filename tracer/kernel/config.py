"""The configuration with which this kernel was built, if it can be read."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from pathlib import Path


def places(release: str) -> tuple[Path, ...]:
    """Return the files that may have a kernel's configuration: its own (CONFIG_IKCONFIG_PROC), or one beside
    its image."""
    return (Path("/proc/config.gz"), Path(f"/boot/config-{release}"), Path(f"/lib/modules/{release}/config"))


def options_set(files: Iterable[Path] | None = None) -> frozenset[str] | None:
    """Return the names (CONFIG_…) of the options that are built in or modules; None if no file can be
    read."""
    for file in files if files is not None else places(os.uname().release):
        try:
            content = file.read_bytes()
            text = gzip.decompress(content) if file.suffix == ".gz" else content
        except (OSError, EOFError):
            continue
        lines = text.decode("utf-8", "replace").splitlines()
        return frozenset(line.partition("=")[0] for line in lines if line.endswith(("=y", "=m")))
    return None
