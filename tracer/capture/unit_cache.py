"""Compiled units kept on disk: clang takes most of a start, and makes the same of the same sources each time.

A unit is kept under the digest of all that it was made from, so one that does not fit is never found. Its
programs run in the kernel: they are taken from a folder that nobody but this user can write to.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.unit import Unit

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
        if self._folder is None or not _is_ours_alone(self._folder):
            return None
        try:
            document = (self._folder / key).read_bytes()
            digest, document = document[:_DIGEST_BYTES], document[_DIGEST_BYTES:]
            if digest != hashlib.sha256(document).digest():
                return None
            os.utime(self._folder / key)
            return Unit.decode(document)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, unit: Unit) -> None:
        """Keep it, whole or not at all."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours_alone(self._folder):
                return
            document = unit.encode()
            unfinished = self._folder / f".{key}.{os.getpid()}"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(unfinished, flags, 0o600), "wb") as stream:  # noqa: PTH123  a descriptor
                    stream.write(hashlib.sha256(document).digest() + document)
                unfinished.rename(self._folder / key)
            finally:
                unfinished.unlink(missing_ok=True)
            self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        """Of ours alone: the folder may be one that a user keeps other files in."""
        assert self._folder is not None
        ours = (path for path in self._folder.iterdir() if _OURS.fullmatch(path.name))
        used = sorted(ours, key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in used[_MOST_UNITS:]:
            path.unlink(missing_ok=True)


def _is_ours_alone(folder: Path) -> bool:
    """Whether only this user could have put there what is in it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
