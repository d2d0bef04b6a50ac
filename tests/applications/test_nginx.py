"""nginx serves files at random that do not fit below its limit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from applications.rerun import MIB, assert_reads_nothing_again_at_the_upper_end
from workloads.web_server import make_site, serving

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx"),
]


def test_nginx_at_the_suggested_limit_reads_nothing_again(tmp_path: Path) -> None:
    make_site(tmp_path)
    assert_reads_nothing_again_at_the_upper_end(
        serving(tmp_path), tmp_path / "trace", 52 * MIB, tmp_path, tmp_path / "files"
    )
