"""Compiled programs and learnt facts cached on disk, because they take most of a recorder's start.

The key of a document is a digest of everything that determines it, so a stale document is never found. The
programs run in the kernel, so only this user may have write access to the folder of the cache.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from tracer.directory import Directory

_FOLDER: Final = "/var/cache/memcg-tracer"
_MOST_DOCUMENTS: Final = 64  # two for each set of options and kernel: one of 300 KB, one of 10 KB
_DIGEST_BYTES: Final = blake2b.MAX_DIGEST_SIZE
_OURS: Final = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+")  # a `cache_key`, or an unfinished file


def cache_folder() -> Path | None:
    """Return MEMCG_TRACER_CACHE, or /var/cache/memcg-tracer; None, for no cache, if the variable is empty."""
    folder = os.environ.get("MEMCG_TRACER_CACHE", _FOLDER)
    return Path(folder) if folder else None


def cache_key(*parts: str | bytes) -> str:
    """Return the key of a document that is made from these parts."""
    digest = blake2b(digest_size=32)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


class Cache:
    """The most recently used documents, in a folder.

    Without a folder, or with one that is not safe or not writable, nothing is cached, silently: a start only
    takes longer.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        """Return the document of a key, or None."""
        with suppress(OSError):
            if (folder := self._open()) is None:
                return None
            with folder, folder.read(key) as file:
                document = file.read()
                digest, document = document[:_DIGEST_BYTES], document[_DIGEST_BYTES:]
                if digest != blake2b(document).digest():
                    return None
                os.utime(file.fileno())
            return document
        return None

    def put(self, key: str, document: bytes) -> None:
        """Cache a document, whole or not at all."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (folder := self._open()) is None:
                return
            unfinished = f".{key}.{os.getpid()}"
            with folder:
                try:
                    with folder.create(unfinished) as file:
                        file.write(blake2b(document).digest() + document)
                    folder.replace(unfinished, key)
                except OSError:
                    folder.unlink(unfinished)
                    raise
                _forget_the_oldest(folder)

    def _open(self) -> Directory | None:
        """Open the folder; None if anyone else can write to it."""
        if self._folder is None:
            return None
        folder = Directory.open(self._folder)
        if folder.is_writable_by_us_alone():
            return folder
        folder.close()
        return None


def _forget_the_oldest(folder: Directory) -> None:
    """Remove the oldest cached files; the folder may also hold files of the user."""
    ours = [name for name in folder.names() if _OURS.fullmatch(name)]
    for name in sorted(ours, key=folder.modified_ns, reverse=True)[_MOST_DOCUMENTS:]:
        folder.unlink(name)
