from __future__ import annotations

import os
import random
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from vm.errors import NotRunError
from vm.programs import find
from vm.python_disk import PythonDisk, python_folders


def installed(program: str) -> bool:
    try:
        find(program)
    except NotRunError:
        return False
    return True


needs_e2fsprogs = pytest.mark.skipif(not installed("mkfs.ext4"), reason="needs mkfs.ext4")


def debugfs(image: Path, request: str) -> bytes:
    """Return the answer of e2fsprogs to a request about a disk."""
    program = Path(find("mkfs.ext4")).with_name("debugfs")
    return subprocess.run([program, "-R", request, image], check=True, capture_output=True).stdout


@needs_e2fsprogs
def test_each_folder_is_on_the_disk_under_its_number(tmp_path: Path) -> None:
    content = random.Random(5).randbytes(70_001)
    for folder in ("first", "second/below"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "first/a.so").write_bytes(content)
    (tmp_path / "second/below/b.py").write_text("b = 1\n")
    os.utime(tmp_path / "second/below/b.py", (1_000_000_007, 1_000_000_007))
    with PythonDisk(tmp_path, [tmp_path / "first", tmp_path / "second"]) as disk:
        assert debugfs(disk.image, "cat /0/a.so") == content
        assert debugfs(disk.image, "cat /1/below/b.py") == b"b = 1\n"
        # a compiled file is valid for a source of one time only
        assert b"mtime: 0x3b9aca07" in debugfs(disk.image, "stat /1/below/b.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert (tmp_path / "first/a.so").stat().st_nlink == 1


@needs_e2fsprogs
def test_folder_that_cannot_be_copied_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotRunError):
        PythonDisk(tmp_path, [tmp_path / "missing"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["json", "numpy", "pytest", "tracer", "support.losses"])
def test_what_a_recorder_or_its_test_imports_is_on_the_disk(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    assert any(Path(spec.origin).is_relative_to(folder) for folder in python_folders())
