"""The place that a URL names, and the few operations that a copy needs there.

Files appear there whole. An object store shows an object when all of it has arrived. A filesystem that can
rename gets a file under a temporary name first. Temporary failures, such as a broken connection, are retried
(`attempts`).

Only operations on one file are used, because fsspec expands `*`, `?` and `[` in the arguments of the others.
Where fsspec would list folders one by one, this module does so, because fsspec leaves out folders that it
cannot list.

Below a target that is a directory of this machine, no symbolic link is followed. Otherwise, anyone who can
write there could make root write, read or remove a file of the same name elsewhere.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from urllib.parse import quote_from_bytes

from tracer.directory import Directory, require_own_links
from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing.attempts import is_lasting, reason, tried
from tracer.urls import is_url, shown_url


def put_local(root: Path, path: str, temporary: str, chunks: Iterable[bytes]) -> None:
    """Write a whole file (0600) to disk, in folders (0700) that are made if they are absent.

    The file has the name `temporary` until it is complete. Raises OSError.
    """
    require_own_links(root)
    root.mkdir(parents=True, exist_ok=True)
    folder, _, name = path.rpartition("/")
    with _opened(root, folder, make=True) as directory:
        directory.write_whole(name, chunks, temporary=temporary, sync=True)


@contextmanager
def reading_local(root: Path, path: str) -> Iterator[IO[bytes]]:
    """Open a regular file. Raises OSError."""
    folder, _, name = path.rpartition("/")
    with _opened(root, folder) as directory, directory.read(name) as file:
        yield file


def remove_local(root: Path, path: str) -> None:
    """Remove a file; it may be gone already. Raises OSError."""
    folder, _, name = path.rpartition("/")
    with suppress(FileNotFoundError), _opened(root, folder) as directory:
        directory.unlink(name)


@contextmanager
def _opened(root: Path, folder: str, *, make: bool = False) -> Iterator[Directory]:
    """Open the directory at a path below the root."""
    with ExitStack() as stack:
        directory = stack.enter_context(Directory.open(root.resolve()))
        for part in filter(None, folder.split("/")):
            try:
                directory = stack.enter_context(directory.subfolder(part, make=make))
            except NotADirectoryError:
                why = f"{directory.path / part} is a symbolic link or a file, and no directory"
                raise NotADirectoryError(errno.ENOTDIR, why) from None
        yield directory


_TEMPORARY: Final = re.compile(r"\.upload-[0-9a-f]{16}\.tmp")
_AT_ONCE_BYTES: Final = 32 << 20
_MOST_DEPTH: Final = 16  # of folders: a page of a web server may link to itself
_OBJECT_STORES: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "oci", "tos", "memory"}
)

_Answer = TypeVar("_Answer")


class TargetError(TracerError):
    """The place at the URL cannot be used now."""


def encoded(part: str) -> str:
    """Return the name at the target for the name of a directory. All but letters, digits and `_.-~` is
    percent-encoded, so that the name is the same everywhere, and different names stay different."""
    return quote_from_bytes(os.fsencode(part), safe="")


class Target:
    """The place at a URL. Paths are relative to it, with `/`.

    Methods raise TargetError for a failure that concerns the place. `wait` is called with the time until the
    next attempt, in s. A copy of this object in another process makes its own connection.

    The constructor does not connect. It raises UsageError for an invalid URL, and TargetError if a package
    that the protocol needs is not installed.
    """

    def __init__(self, url: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        self.url = shown_url(url).rstrip("/")
        self._asked = url
        self._wait = wait
        self._opened: dict[int | None, tuple[Any, str]] = {}
        if not is_url(url) and not url.startswith("/"):
            raise UsageError(f"{url} is no URL: give one, such as s3://bucket/traces, or an absolute path")
        kind = _kinds_of(url)[0]
        protocols = {kind.protocol} if isinstance(kind.protocol, str) else set(kind.protocol)
        self.is_local = "file" in protocols
        # In a bucket, a folder without objects gives an empty listing: only the bucket can be missing.
        self._is_s3 = "s3" in protocols
        self._renames = not _OBJECT_STORES & protocols and _can_rename(kind)
        self._lists_all = _lists_all(kind)
        self._kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._asked,)

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
        """Connect, unless that was done. This can fail temporarily, as any operation can."""
        import fsspec  # noqa: PLC0415

        if self._user() not in self._opened:
            logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # errors are raised as well
            system, root = fsspec.url_to_fs(self._asked)
            self._opened[self._user()] = system, root.rstrip("/")
        return self._opened[self._user()]

    def _user(self) -> int | None:
        """Return the thread that has its own connection; None: all threads share one. Two threads that share
        an SFTP connection would take each other's answers, and wait for their own forever. Clients that run
        an event loop can be shared."""
        return None if self._kind.async_impl else threading.get_ident()

    def _close_after(self, error: Exception) -> None:
        """Make the next attempt reconnect if a broken connection would stay broken (SFTP, FTP)."""
        if not self._kind.async_impl and not self.is_local and not is_lasting(error):
            self._opened.pop(self._user(), None)
            self._kind.clear_instance_cache()

    def url_of(self, path: str) -> str:
        """Return the URL of a path, for messages."""
        return f"{self.url}/{path}".rstrip("/")

    def list(
        self, folder: str, leave_out: Callable[[str, TargetError], None] | None = None
    ) -> dict[str, int]:
        """Return the files below a folder: path in the folder -> bytes; {} if there is no such folder.

        Temporary files are left out. For each folder below it that cannot be listed, `leave_out` is called
        with its path in the folder and the error; without `leave_out`, the error is raised.
        """
        found = self._all(folder, leave_out)
        return {file: size for file, size in found.items() if not _TEMPORARY.fullmatch(_last(file))}

    def read(self, path: str, most_bytes: int) -> bytes | None:
        """Return at most `most_bytes` from the start of a file; None: there is no such file."""

        def read() -> bytes | None:
            self._fs.invalidate_cache()
            try:
                with self._reading(path) as file:
                    return bytes(file.read(most_bytes))
            except FileNotFoundError:
                return None

        return self._tried(read, path)

    def get(self, path: str, file: Path) -> None:
        """Copy a file to a local file, which is replaced."""
        self._tried(lambda: self._fs.get_file(self._path(path), str(file)), path)

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file, without retries."""
        try:
            with self._reading(path) as file:
                while chunk := file.read(1 << 20):
                    yield chunk
        except Exception as error:
            raise self._error(path, error) from error

    def put(self, path: str, size_bytes: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write a whole file, which replaces an existing one."""
        self._tried(lambda: self._put(path, size_bytes, chunks), path, again=self._is_temporary_gone)

    def remove(self, path: str) -> None:
        """Remove a file; it may be gone already."""

        def remove() -> None:
            if self.is_local:
                remove_local(Path(self.root), path)
                return
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(path))

        self._tried(remove, path)

    def clear_temporary(self, folder: str) -> None:
        """Remove the temporary files that a killed pusher left, as far as possible."""
        if self._renames:
            for file in self._all(folder):
                if _TEMPORARY.fullmatch(_last(file)):
                    with suppress(TargetError):
                        self.remove(f"{folder}/{file}")

    def _all(
        self, folder: str, leave_out: Callable[[str, TargetError], None] | None = None
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        waiting = [""]
        while waiting:
            within = waiting.pop()
            at = "/".join(filter(None, (folder, within)))
            try:
                entries = self._tried(partial(self._entries, at), at)
            except TargetError as error:
                if not within or leave_out is None:
                    raise
                leave_out(within, error)
                continue
            for name, size_bytes in entries.items():
                path = f"{within}/{name}" if within else name
                if size_bytes is not None:
                    found[path] = size_bytes
                elif path.count("/") < _MOST_DEPTH:
                    waiting.append(path)
        return found

    def _entries(self, folder: str) -> dict[str, int | None]:
        """Return the files and folders in a folder, or all files below it where one request lists them: path
        in the folder -> bytes; None: it is a folder."""
        base = self._path(folder) or "/"
        self._fs.invalidate_cache()
        try:
            if self._lists_all:
                entries = [*self._fs.find(base, detail=True).values()]
            else:
                entries = self._fs.ls(base, detail=True)
        except FileNotFoundError:
            if self._is_s3:
                raise
            return {}
        prefix = f"{base.strip('/')}/".removeprefix("/")
        named = ((str(entry["name"]).strip("/"), entry) for entry in entries)
        return {
            name.removeprefix(prefix): None if _is_folder(entry) else int(entry["size"] or 0)
            for name, entry in named
            if name.startswith(prefix) and name != prefix
        }

    def _reading(self, path: str) -> Any:
        """Open a file for reading, as a context."""
        if self.is_local:
            return reading_local(Path(self.root), path)
        return self._fs.open(self._path(path), "rb")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _put(self, path: str, size_bytes: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        whole = self._path(path)
        if not self._renames:
            if size_bytes <= _AT_ONCE_BYTES:
                self._fs.pipe_file(whole, b"".join(chunks()))
            else:
                self._write(whole, chunks())
            return
        name = f".upload-{secrets.token_hex(8)}.tmp"
        if self.is_local:
            put_local(Path(self.root), path, name, chunks())
            return
        folder = whole.rpartition("/")[0]
        temporary = f"{folder}/{name}"
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
        except BaseException:
            with suppress(Exception):
                if self._renames:
                    file.close()
                else:
                    file.discard()  # closing it would publish a part of it
            raise
        file.close()

    def _is_temporary_gone(self, error: Exception) -> bool:
        """Return whether another pusher of the same trace may have removed a temporary file."""
        return self._renames and isinstance(error, FileNotFoundError)

    def _tried(
        self, act: Callable[[], _Answer], path: str, *, again: Callable[[Exception], bool] = lambda _: False
    ) -> _Answer:
        def attempt() -> _Answer:
            try:
                return act()
            except TracerError:
                raise
            except Exception as error:
                self._close_after(error)
                raise

        try:
            return tried(attempt, self._asked, wait=self._wait, again=again)
        except TracerError:
            raise
        except Exception as error:
            raise self._error(path, error) from error

    def _error(self, path: str, error: Exception) -> TargetError:
        return TargetError(f"cannot use {self.url_of(path)}: {reason(error)}")


@contextmanager
def private_files() -> Iterator[None]:
    """Make new files readable by their owner only: a trace has names of processes, files and containers."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _kinds_of(url: str) -> list[Any]:
    """Return the filesystem class of each link of a URL (`simplecache::s3://…` has two)."""
    try:
        import fsspec  # noqa: PLC0415  the extra `fleet` has it
    except ImportError:
        raise TargetError("collecting traces needs fsspec: pip install 'memcg-tracer[fleet]'") from None
    try:
        links = [link.partition("://") for link in url.split("::")]
        return [
            fsspec.get_filesystem_class(name if colon or link is not links[-1] else "file")
            for link in links
            for name, colon, _ in [link]
        ]
    except ImportError as error:
        name = getattr(error.__cause__, "name", None) or ""  # fsspec's message mostly names the package
        how = f": pip install {name}" if name and name in str(error) else ""
        raise TargetError(f"cannot use {shown_url(url)}: {error}{how}") from error
    except ValueError as error:
        raise UsageError(f"cannot use {shown_url(url)}: {error}: give another URL") from error


def _can_rename(kind: Any) -> bool:
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

    return kind.mv is not AbstractFileSystem.mv


def _lists_all(kind: Any) -> bool:
    """Return whether a filesystem lists all files below a folder at once. The others walk through the
    folders, and leave out folders that fail."""
    from fsspec.asyn import AsyncFileSystem  # noqa: PLC0415
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

    if issubclass(kind, AsyncFileSystem):
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find


def _is_folder(entry: Any) -> bool:
    """Return whether an entry is a folder to look into. A link is not: links may form a cycle."""
    return bool(entry["type"] == "directory") and not entry.get("islink")


def _last(path: str) -> str:
    return path.rpartition("/")[2]
