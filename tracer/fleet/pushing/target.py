"""The place that a URL names, and the few operations that a copy needs there.

Files appear there whole. An object store shows an object when all of it has arrived. A filesystem that can
rename gets a file under a temporary name first. What fails for a moment, such as a connection, is tried
again.

Only operations on one file are used, because fsspec expands `*`, `?` and `[` in the arguments of the others.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import quote_from_bytes

from tracer.errors import TracerError, UsageError
from tracer.urls import is_url, shown_url

RETRY_AFTER_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""The times between attempts."""

_TEMPORARY: Final = re.compile(r"\.upload-[0-9a-f]{16}\.tmp")
_AT_ONCE_BYTES: Final = 32 << 20
_OBJECT_STORES: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "oci", "tos", "memory"}
)
_LASTING: Final = (
    *(PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError),
    *(NotImplementedError, ImportError, ValueError, TypeError, AttributeError),
)
"""Errors that come again however often it is tried."""
_LASTING_NUMBERS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
_LASTING_NAMES: Final = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "ParamValidationError",
)

_Answer = TypeVar("_Answer")


class TargetError(TracerError):
    """The place at the URL cannot be used now."""


def encoded(part: str) -> str:
    """Return the name at the target for the name of a directory: all but letters, digits and `_.-~` is
    percent-encoded, so that it is one name everywhere, and different names stay different."""
    return quote_from_bytes(os.fsencode(part), safe="")


class Target:
    """The place at a URL. Paths are relative to it, with `/`.

    Methods raise TargetError for a failure that concerns the place. `wait` is called with the time until the
    next attempt, in s.

    The constructor connects to nothing. It raises UsageError if it is no URL, and TargetError if what its
    protocol needs is not installed.
    """

    def __init__(self, url: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        self.url = shown_url(url).rstrip("/")
        self._asked = url
        self._wait = wait
        self._opened: tuple[Any, str] | None = None
        if not is_url(url) and not url.startswith("/"):
            raise UsageError(f"{url} is no URL: give one, such as s3://bucket/traces, or an absolute path")
        kind = _kinds_of(url)[0]
        protocols = {kind.protocol} if isinstance(kind.protocol, str) else set(kind.protocol)
        self.is_local = "file" in protocols
        self._renames = not _OBJECT_STORES & protocols and _can_rename(kind)

    @property
    def root(self) -> str:
        """Return the path of the place in its filesystem."""
        return self._root or "/"

    @property
    def _fs(self) -> Any:
        return self._open()[0]

    @property
    def _root(self) -> str:
        return self._open()[1]

    def _open(self) -> tuple[Any, str]:
        """Connect, unless that was done: it may fail for a moment, as any operation."""
        import fsspec  # noqa: PLC0415

        if self._opened is None:
            system, root = fsspec.url_to_fs(self._asked)
            self._opened = system, root.rstrip("/")
        return self._opened

    def url_of(self, path: str) -> str:
        """Return the URL of a path, for messages."""
        return f"{self.url}/{path}"

    def list(self, folder: str) -> dict[str, int]:
        """Return the files below a folder: path in the folder -> bytes; {} if there is no such folder.

        Temporary files are left out.
        """
        return {
            file: size for file, size in self._all(folder).items() if not _TEMPORARY.fullmatch(_last(file))
        }

    def read(self, path: str, most_bytes: int) -> bytes | None:
        """Return the first bytes of a file; None: there is none."""

        def read() -> bytes | None:
            self._fs.invalidate_cache()
            try:
                with self._fs.open(self._path(path), "rb") as file:
                    return bytes(file.read(most_bytes))
            except FileNotFoundError:
                return None

        return self._tried(read, path)

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file; it is not tried again."""
        try:
            with self._fs.open(self._path(path), "rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk
        except Exception as error:
            raise self._error(path, error) from error

    def put(self, path: str, size_bytes: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write a file, whole; one that is there is replaced."""
        self._tried(lambda: self._put(path, size_bytes, chunks), path, again=self._is_temporary_gone)

    def remove(self, path: str) -> None:
        """Remove a file; it may be gone already."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(path))

        self._tried(remove, path)

    def clear_temporary(self, folder: str) -> None:
        """Remove what a killed pusher left of files that it was writing, as far as that is possible."""
        if self._renames:
            for file in self._all(folder):
                if _TEMPORARY.fullmatch(_last(file)):
                    with suppress(TargetError):
                        self.remove(f"{folder}/{file}")

    def _all(self, folder: str) -> dict[str, int]:
        def find() -> dict[str, int]:
            prefix = f"{self._path(folder)}/"
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(prefix.rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
            return {
                path.removeprefix(prefix): int(entry["size"] or 0)
                for path, entry in found.items()
                if path.startswith(prefix)
            }

        return self._tried(find, folder)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _put(self, path: str, size_bytes: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        whole = self._path(path)
        if not self._renames:
            if size_bytes <= _AT_ONCE_BYTES:
                self._fs.pipe_file(whole, b"".join(chunks()))
            else:
                self._write(whole, chunks())
            return
        folder = whole.rpartition("/")[0]
        temporary = f"{folder}/.upload-{secrets.token_hex(8)}.tmp"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._write(temporary, chunks())
            self._fs.mv(temporary, whole)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def _write(self, path: str, chunks: Iterable[bytes]) -> None:
        file = self._fs.open(path, "wb")
        try:
            for chunk in chunks:
                file.write(chunk)
            if self.is_local:
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(Exception):
                if self._renames:
                    file.close()
                else:
                    file.discard()  # closing it would show a part of it
            raise
        file.close()

    def _is_temporary_gone(self, error: Exception) -> bool:
        """Return whether another pusher of the same trace may have removed a temporary file."""
        return self._renames and isinstance(error, FileNotFoundError)

    def _tried(
        self, act: Callable[[], _Answer], path: str, *, again: Callable[[Exception], bool] = lambda _: False
    ) -> _Answer:
        for wait_s in (*RETRY_AFTER_S, None):
            try:
                return act()
            except TracerError:
                raise
            except Exception as error:
                if wait_s is None or (_is_lasting(error) and not again(error)):
                    raise self._error(path, error) from error
                self._wait(wait_s)
        raise AssertionError

    def _error(self, path: str, error: Exception) -> TargetError:
        words = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        return TargetError(f"cannot use {self.url_of(path)}: {words or type(error).__name__}")


@contextmanager
def private_files() -> Iterator[None]:
    """Have new files readable by their owner only: a trace has names of processes, files and containers."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _kinds_of(url: str) -> list[Any]:
    """Return the class of filesystem of each link of a URL (`simplecache::s3://…` has two)."""
    try:
        import fsspec  # noqa: PLC0415  the extra `fleet` has it
    except ImportError:
        raise TargetError("collecting traces needs fsspec: pip install 'memcg-tracer[fleet]'") from None
    try:
        links = [link.partition("://") for link in url.split("::")]
        return [
            fsspec.get_filesystem_class(name if colon or len(links) > 1 else "file")
            for name, colon, _ in links
        ]
    except ImportError as error:
        raise TargetError(f"cannot use {shown_url(url)}: {error}") from error
    except ValueError as error:
        raise UsageError(f"cannot use {shown_url(url)}: {error}: give another URL") from error


def _can_rename(kind: Any) -> bool:
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

    return kind.mv is not AbstractFileSystem.mv


def _is_lasting(error: Exception) -> bool:
    if isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES:
        return True
    return isinstance(error, OSError) and error.errno in _LASTING_NUMBERS


def _last(path: str) -> str:
    return path.rpartition("/")[2]
