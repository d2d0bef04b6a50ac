"""The miss curve of a trace against the same work with more memory, on this kernel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from applications.rerun import MIB, recorded

pytestmark = pytest.mark.kernel

PAGES = 7_919
READS = 23_000
LIMIT_BYTES = 25 * MIB
READER = Path(__file__).parents[1] / "workloads" / "rereader.py"


def test_refaults_with_more_memory_are_those_of_the_miss_curve(tmp_path: Path) -> None:
    files, trace = tmp_path / "files", tmp_path / "trace"
    files.mkdir()
    (files / "file").write_bytes(os.urandom(PAGES * 4096))
    command = [sys.executable, str(READER), str(files / "file"), str(PAGES), str(READS)]
    tight = recorded(command, trace, LIMIT_BYTES, tmp_path, files)
    again, curve = tight.refaulted_bytes or 0, tight.miss_curve or ()
    assert again > 8 * MIB
    assert curve[-1].spared_bytes == again
    half = next(point for point in curve if point.spared_share >= 0.5)
    more = recorded(command, trace, LIMIT_BYTES + half.extra_bytes, tmp_path, files)
    print(
        f"{again / MIB:.1f} MiB again, +{half.extra_bytes / MIB:.1f} MiB spares "
        f"{half.spared_bytes / MIB:.1f} MiB, measured {(again - (more.refaulted_bytes or 0)) / MIB:.1f} MiB"
    )
    assert again - (more.refaulted_bytes or 0) == pytest.approx(half.spared_bytes, rel=0.1)
    all_of_them = recorded(command, trace, LIMIT_BYTES + curve[-1].extra_bytes + MIB, tmp_path, files)
    assert (all_of_them.refaulted_bytes or 0) < again // 50
