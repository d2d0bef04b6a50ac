"""The place of a dataset: an fsspec URL, or a local path."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from tracer.errors import TracerError
from tracer.fleet.pushing.attempts import reason
from tracer.fleet.pushing.target import Target
from tracer.urls import is_url


class Store(Target):
    """A `Target` whose files can be read as well. `address` is a URL or a path. The constructor raises the
    errors of `Target`."""

    def __init__(self, address: str) -> None:
        super().__init__(address if is_url(address) else os.path.abspath(address))  # noqa: PTH100  `~` is a name

    def entries(self) -> list[str]:
        """Return the names of the files and folders at the place, sorted; [] if there is no such place."""

        def names() -> list[str]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self.root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

        return self._tried(names, "")

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Yield a Parquet file that can be read from any position. A read that fails temporarily is retried.

        Raises TracerError for any error in the block: a Parquet reader, or the client of an object store, may
        raise any exception, and none may stop more than the work that needs this file.
        """
        try:
            with _TriedFile(partial(self._opened_file, path), partial(self._tried, path=path)) as file:
                yield cast(IO[bytes], file)
        except MemoryError:
            raise
        except TracerError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise TracerError(
                    f"{self.url_of(path)} was written together with others meanwhile: open the dataset again"
                ) from error.__cause__
            raise
        except Exception as error:
            words = reason(error).rstrip(".")
            raise TracerError(f"cannot read {self.url_of(path)}: {words}: restore it from a copy") from error

    def _opened_file(self, path: str) -> Any:
        self._fs.invalidate_cache()
        return self._fs.open(self._path(path), "rb")

    def put_file(self, path: str, file: Path) -> None:
        """Write a file, whole, with the content of a local file."""
        self.put(path, file.stat().st_size, lambda: _chunks(file))


class _TriedFile(io.RawIOBase):
    """A file of a store, which is reopened and read again after a temporary failure."""

    def __init__(self, open_file: Callable[[], Any], tried: Callable[[Callable[[], Any]], Any]) -> None:
        self._open_file, self._tried = open_file, tried
        self._file: Any = None
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += self._tried(partial(self._with_file, _length_bytes))
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        def read(file: Any) -> bytes:
            file.seek(self._position)
            return bytes(file.read(len(buffer)))

        content: bytes = self._tried(partial(self._with_file, read))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._forget()
        super().close()

    def _with_file(self, act: Callable[[Any], Any]) -> Any:
        try:
            if self._file is None:
                self._file = self._open_file()
            return act(self._file)
        except Exception:
            self._forget()
            raise

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # its connection may be gone
                file.close()


def _length_bytes(file: Any) -> int:
    file.seek(0, os.SEEK_END)  # seek() returns None for SFTP
    return int(file.tell())


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            yield chunk
