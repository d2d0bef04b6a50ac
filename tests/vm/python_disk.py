"""The Python files of guests, on a disk of their own.

Each open and close of a file on the host's root takes an emulated machine some milliseconds, and a new Python
process opens hundreds. `record -- true` took 38 s of a guest from there, and 17 s from this disk.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vm.errors import NotRunError
from vm.programs import call

CHECKOUT: Final = Path(__file__).parents[2]

_LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
_UNUSED: Final = shutil.ignore_patterns("site-packages", "dist-packages", "test", "config-*")
"""In the folder of the standard library: packages for this Python itself, its tests, and what programs that
embed it are linked with."""
_BLOCK_BYTES: Final = 4096
_INODE_BYTES: Final = 256
_TABLES_BYTES: Final = 64 << 20  # of the filesystem


def python_folders() -> list[Path]:
    """Return the folders that Python imports from, and those of the checkout's programs."""
    packages = [Path(entry) for entry in sys.path if entry.endswith("-packages") and Path(entry).is_dir()]
    checkout = [CHECKOUT / name for name in ("tracer", "bpf", "tests")]
    return list(dict.fromkeys((_LIBRARY, *packages, *checkout)))


class PythonDisk:
    """A disk image with copies of folders, which are named 0, 1, 2, ... in the order of `folders`.

    It is in a folder of its own below `parent`; the end of the context removes it. Raises NotRunError if
    there is no image.
    """

    def __init__(self, parent: Path, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._scratch = tempfile.TemporaryDirectory(prefix="python-", dir=parent)
        self.image = Path(self._scratch.name, "image")
        tree = Path(self._scratch.name, "tree")
        try:
            for number, folder in enumerate(self.folders):
                ignored = _UNUSED if folder == _LIBRARY else None
                target = tree / str(number)
                shutil.copytree(folder, target, symlinks=True, ignore=ignored, copy_function=_link_or_copy)
            _make_image(self.image, tree)
            shutil.rmtree(tree)
        except BaseException as error:
            self._scratch.cleanup()
            if isinstance(error, OSError):
                raise NotRunError(f"no disk with the Python files: {error}") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._scratch.cleanup()


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copy2(source, target)


def _make_image(image: Path, tree: Path) -> None:
    sizes = [os.lstat(Path(root, name)).st_size for root, _, names in os.walk(tree) for name in (".", *names)]
    blocks_bytes = sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES + _INODE_BYTES for size in sizes)
    with image.open("wb") as file:
        file.truncate(blocks_bytes + _TABLES_BYTES)
    options = ["-qF", "-O", "^has_journal", "-m", "0", "-E", "nodiscard", "-N", str(len(sizes) + 100)]
    call("mkfs.ext4", *options, "-d", tree, image)
