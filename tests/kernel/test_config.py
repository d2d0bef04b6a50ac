"""Memory that is not charged, by command lines of kernels."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tracer.categories import CATEGORIES
from tracer.kernel.config import options_set, places, uncharged

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


NOT_KERNEL = {"anon", "file", "shmem", "sock", "swap"}
KERNEL = {category.name for category in CATEGORIES} - NOT_KERNEL


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        ("root=/dev/vda quiet\n", set()),
        ("root=/dev/vda cgroup.memory=nobpf\n", set()),
        ("cgroup.memory=nosocket\n", {"sock"}),
        ("quiet cgroup.memory=nokmem ro\n", KERNEL),
        ("cgroup.memory=nosocket,nokmem\n", KERNEL | {"sock"}),
        ("cgroup.memory=nosocket cgroup.memory=nokmem\n", KERNEL | {"sock"}),
        ("xcgroup.memory=nokmem cgroup.memory=nokmemory\n", set()),
    ],
)
def test_uncharged_is_what_the_command_line_switches_off(
    command_line: str, expected: set[str], tmp_path: Path
) -> None:
    (tmp_path / "cmdline").write_text(command_line)
    assert uncharged(tmp_path / "cmdline") & {category.name for category in CATEGORIES} == expected


def test_uncharged_of_this_kernel_is_readable() -> None:
    assert uncharged() <= KERNEL | {"sock", "zswap"}
