"""The folder of a search: `fit.json` with its runs, their curve, and the trace and the output of each run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tracer.errors import TracerError
from tracer.fit.search import Run

FILE: Final = "fit.json"
CURVE: Final = "curve.svg"
_SCHEMA: Final = 1


@dataclass
class Folder:
    """The runs of a command so far, and the files that its first run used.

    `add` writes all to disk before it returns.
    """

    path: Path
    argv: tuple[str, ...]
    runs: list[Run]
    files: frozenset[str]

    @classmethod
    def open(cls, path: Path, argv: Sequence[str]) -> Folder:
        """Make the folder (0700), or open one with runs of the same command in the same directory.

        Raises TracerError if it has runs of another command, is no folder of a search, or cannot be made.
        """
        try:
            if not path.exists() or not any(path.iterdir()):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder = cls(path, tuple(argv), [], frozenset())
                folder._write()
                return folder
            stored = json.loads((path / FILE).read_text("utf-8"))
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
        except OSError as error:
            raise TracerError(f"cannot use {path} ({error.strerror}): choose another with -o") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TracerError(f"{path} is not empty, and no folder of fit: choose another with -o") from error
        return cls(path, tuple(argv), runs, files)

    def next_trace(self) -> Path:
        """Return where the next run is to be recorded."""
        return self.path / f"run-{len(self.runs) + 1}"

    def add(self, run: Run, files: frozenset[str]) -> None:
        """Add a run and files that it used, and write all to disk."""
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
        fresh = self.path / f"{name}.new"
        with open(fresh, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
