"""The folder of a search: `fit.json` with its runs, their curve, and the trace and the output of each run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tracer.directory import Directory, require_own_links
from tracer.errors import TracerError
from tracer.fit.search import Run
from tracer.trace.write.claim import open_own

FILE: Final = "fit.json"
CURVE: Final = "curve.svg"
_SCHEMA: Final = 1


@dataclass
class Folder:
    """The runs of a command so far, and the files that its first run used.

    `add` writes everything to disk before it returns. `directory` is the opened folder, wherever its path
    leads now.
    """

    directory: Directory
    argv: tuple[str, ...]
    runs: list[Run]
    files: frozenset[str]

    @classmethod
    def open(cls, path: Path, argv: Sequence[str]) -> Folder:
        """Make the folder (0700), or open one with runs of the same command in the same directory.

        Raises TracerError if the folder has runs of another command, is not the folder of a search, is a
        symbolic link, belongs to another user, or cannot be made.
        """
        try:
            require_own_links(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            directory = open_own(path, "folder of fit")
            os.fchmod(directory.fileno(), 0o700)
            if not directory.names():
                folder = cls(directory, tuple(argv), [], frozenset())
                folder._write()
                return folder
            with directory.read(FILE) as file:
                stored = json.loads(file.read())
            runs, files = [Run(**run) for run in stored["runs"]], frozenset(stored["files"])
            if stored["schema"] != _SCHEMA:
                raise TracerError(
                    f"{path} was made by another version of memcg-tracer: choose another with -o"
                )
            if (stored["command"], stored["directory"]) != (list(argv), str(Path.cwd())):
                shown = " ".join(stored["command"])
                raise TracerError(
                    f"{path} has runs of {shown!a} in {stored['directory']!a}: choose another with -o"
                )
        except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise TracerError(f"{path} is not empty, and no folder of fit: choose another with -o") from error
        except OSError as error:
            why = error.strerror or error
            raise TracerError(f"cannot use {path} ({why}): choose another with -o") from error
        return cls(directory, tuple(argv), runs, files)

    @property
    def path(self) -> Path:
        """Return the path by which the folder was opened."""
        return self.directory.path

    def next_trace(self) -> Path:
        """Return the path of the next run's trace."""
        return self.path / f"run-{len(self.runs) + 1}"

    def add(self, run: Run, files: frozenset[str]) -> None:
        """Add a run and the files that it used, and write everything to disk."""
        self.runs.append(run)
        self.files |= files
        self._write()

    def write_curve(self, svg: str) -> Path:
        """Write the picture of the runs, in place of an earlier one, and return its path."""
        self._replace(CURVE, svg)
        return self.path / CURVE

    def _write(self) -> None:
        content: dict[str, Any] = {
            "schema": _SCHEMA,
            "command": list(self.argv),
            "directory": str(Path.cwd()),
            "runs": [asdict(run) for run in self.runs],
            "files": sorted(self.files),
        }
        self._replace(FILE, json.dumps(content, indent=2))

    def _replace(self, name: str, text: str) -> None:
        self.directory.write_whole(name, [text.encode()], sync=True)
