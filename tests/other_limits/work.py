"""Programs in the place of experiments: their commands, and their files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from applications.rerun import drop_from_cache

from tracer.kernel.process.children import argv_of_module
from tracer.lab.experiments import Experiment
from tracer.lab.scratch import write_uncached

MIB: Final = 1 << 20


@dataclass(frozen=True)
class Program(Experiment):
    """Work in the place of an experiment.

    `argv` gets the place of its file, `read-me`, and returns its command. `limit_bytes` is the limit of its
    second recording: one at which it lives, and may read again.
    """

    argv: Callable[[Path], Sequence[str]] = field(default=lambda _: ())

    def command(self, place: Path) -> list[str]:
        """Return the command to record."""
        return [*self.argv(place)]


def with_content(content: Callable[[], bytes]) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that makes a file of this content, `read-me`, that is not in the page cache."""

    @contextmanager
    def prepare(scratch: Path) -> Iterator[Path]:
        data = content()
        write_uncached(scratch / "read-me", len(data), data)
        yield scratch

    return prepare


def random_file(mib: int) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that makes a file of random content, `read-me`."""
    return with_content(lambda: os.urandom(mib * MIB))


def with_folder(make: Callable[[Path], None]) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that lets `make` fill a folder with files, which are then not in the page cache."""

    @contextmanager
    def prepare(scratch: Path) -> Iterator[Path]:
        make(scratch)
        drop_from_cache(scratch)
        yield scratch

    return prepare


def steps(*words_of_steps: str) -> Callable[[Path], list[str]]:
    """Return the command of steps of the workload; FILE stands for the file."""

    def argv(place: Path) -> list[str]:
        words = " then ".join(words_of_steps).replace("FILE", str(place / "read-me")).split()
        return [*argv_of_module("tracer.lab.workload", "--pause-ms", "1"), *words]

    return argv


def python(code: str) -> Callable[[Path], list[str]]:
    """Return the command of a Python program; its first argument is the file."""
    return lambda place: [sys.executable, "-c", code, str(place / "read-me")]


def program(
    name: str,
    argv: Callable[[Path], Sequence[str]],
    limit_mib: int,
    prepare: Callable[[Path], AbstractContextManager[Path]] = nullcontext,
) -> Program:
    """Return a program; `limit_mib` is the limit of its second recording."""
    return Program(name, "", None, lambda _: [], limit_bytes=limit_mib * MIB, argv=argv, prepare=prepare)


def tool(*words: str) -> Callable[[Path], list[str]]:
    """Return the command of an installed program; FILE stands for the file, and FOLDER for its folder."""

    def argv(place: Path) -> list[str]:
        given = [one.replace("FILE", str(place / "read-me")).replace("FOLDER", str(place)) for one in words]
        return [shutil.which(words[0]) or words[0], *given[1:]]

    return argv


def shell(script: str) -> Callable[[Path], list[str]]:
    """Return the command of a script; $0 is the file."""
    return lambda place: ["sh", "-c", script, str(place / "read-me")]
