"""Compiled units kept on disk: clang takes most of a start, and makes the same of the same sources each time.

A unit is kept under the digest of all that it was made from, so one that does not fit is never found. Its
programs run in the kernel: they are taken from a folder that nobody but this user can write to.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.bpf.object_file import Unit
from tracer.directory import Directory

_FOLDER: Final = "/var/cache/memcg-tracer"
_MOST_UNITS: Final = 32  # of some 200 KB; a unit for each set of hooks and options, and for each kernel
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_OURS: Final = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+")  # by `key_of`; or unfinished


def cache_folder() -> Path | None:
    """`MEMCG_TRACER_CACHE`, or the place for such things; None where that variable is empty: keep nothing."""
    folder = os.environ.get("MEMCG_TRACER_CACHE", _FOLDER)
    return Path(folder) if folder else None


def key_of(*parts: str | bytes) -> str:
    """The name under which a unit is kept that was made from all this."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


class UnitCache:
    """Units in a folder; the ones that were used last. Without a folder, or with one that does not serve,
    nothing is kept, and nothing is said of it: it only takes longer then.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> Unit | None:
        """The unit of that key, if it is kept."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if (folder := self._open()) is None:
                return None
            with folder, folder.read(key) as file:
                document = file.read()
                digest, document = document[:_DIGEST_BYTES], document[_DIGEST_BYTES:]
                if digest != hashlib.sha256(document).digest():
                    return None
                os.utime(file.fileno())
            return Unit.decode(document)
        return None

    def put(self, key: str, unit: Unit) -> None:
        """Keep it, whole or not at all."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (folder := self._open()) is None:
                return
            document = unit.encode()
            unfinished = f".{key}.{os.getpid()}"
            with folder:
                try:
                    with folder.create(unfinished) as file:
                        file.write(hashlib.sha256(document).digest() + document)
                    folder.replace(unfinished, key)
                except OSError:
                    folder.unlink(unfinished)
                    raise
                _forget_the_oldest(folder)

    def _open(self) -> Directory | None:
        """The folder, where only this user could have put there what is in it."""
        if self._folder is None:
            return None
        folder = Directory.open(self._folder)
        if folder.is_writable_by_us_alone():
            return folder
        folder.close()
        return None


def _forget_the_oldest(folder: Directory) -> None:
    """Of ours alone: the folder may be one that a user keeps other files in."""
    ours = [name for name in folder.names() if _OURS.fullmatch(name)]
    for name in sorted(ours, key=folder.modified_ns, reverse=True)[_MOST_UNITS:]:
        folder.unlink(name)
