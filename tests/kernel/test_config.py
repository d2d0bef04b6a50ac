from __future__ import annotations

import gzip
from pathlib import Path

from tracer.kernel.config import options_set, places

CONFIG = b"""\
# Linux/x86 6.18.0 Kernel Configuration
CONFIG_KPROBE_EVENTS=y
CONFIG_XFS_FS=m
# CONFIG_KPROBES is not set
CONFIG_DEFAULT_HOSTNAME="y"
CONFIG_NR_CPUS=64
"""


def test_options_built_in_or_modules_are_set(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(CONFIG)
    assert options_set([tmp_path / "config"]) == frozenset({"CONFIG_KPROBE_EVENTS", "CONFIG_XFS_FS"})


def test_first_readable_file_is_used(tmp_path: Path) -> None:
    torn, whole = tmp_path / "torn.gz", tmp_path / "config.gz"
    torn.write_bytes(gzip.compress(CONFIG)[:20])
    whole.write_bytes(gzip.compress(CONFIG))
    assert options_set([tmp_path / "none", torn, whole]) == frozenset(
        {"CONFIG_KPROBE_EVENTS", "CONFIG_XFS_FS"}
    )


def test_missing_configuration_is_none(tmp_path: Path) -> None:
    assert options_set([tmp_path / "none"]) is None


def test_places_name_kernel_release() -> None:
    assert Path("/boot/config-6.18.5-amd64") in places("6.18.5-amd64")
