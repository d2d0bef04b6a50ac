from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from vm.initrd import cpio, initrd

BUSYBOX = Path("/usr/bin/busybox")

needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason=f"needs {BUSYBOX}")


@needs_busybox
def test_cpio_unpacks_to_the_described_files(tmp_path: Path) -> None:
    entries = {
        "folder": (stat.S_IFDIR | 0o755, b""),
        "folder/odd": (stat.S_IFREG | 0o755, b"12345"),
        "empty": (stat.S_IFREG | 0o644, b""),
    }
    subprocess.run(
        [BUSYBOX, "cpio", "-i"], input=cpio(entries), cwd=tmp_path, check=True, capture_output=True
    )
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "odd", "empty"}
    assert (tmp_path / "folder/odd").read_bytes() == b"12345"
    assert (tmp_path / "folder/odd").stat().st_mode == stat.S_IFREG | 0o755


@needs_busybox
def test_variables_of_any_value_are_quoted(tmp_path: Path) -> None:
    hostile = "a b'; echo \"$(id)\n"
    subprocess.run(
        [BUSYBOX, "cpio", "-i"],
        input=initrd([], {"X": hostile}),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    script = '. ./variables; printf %s "$X"'
    printed = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout == hostile
