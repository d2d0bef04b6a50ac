"""The place of a dataset: a URL of fsspec, or a path of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tracer.errors import TracerError
from tracer.fleet.pushing.target import Target
from tracer.urls import is_url, shown_url


class Store(Target):
    """A place, with its files to read. `address` is a URL or a path. The constructor raises as `Target`."""

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
        """Give a Parquet file to read from any place in it.

        Raises TracerError for what fails in the block: what reads a file, or the client of an object store,
        may raise any error, and none of them must end more than what needs this file.
        """
        try:
            self._fs.invalidate_cache()
            with self._fs.open(self._path(path), "rb") as file:
                yield cast(IO[bytes], file)
        except (TracerError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise TracerError(
                f"{self.url_of(path)} was written together with others meanwhile: open the dataset again"
            ) from error
        except Exception as error:
            words = shown_url(" ".join(str(error).split())).rstrip(".")
            raise TracerError(
                f"cannot read {self.url_of(path)}: {words or type(error).__name__}: restore it from a copy"
            ) from error

    def put_file(self, path: str, file: Path) -> None:
        """Write a file, whole, with the content of one of this machine."""
        self.put(path, file.stat().st_size, lambda: _chunks(file))


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            yield chunk
