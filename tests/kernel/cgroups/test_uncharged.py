"""Memory that is not charged, by command lines of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.categories import CATEGORIES
from tracer.kernel.cgroups.uncharged import uncharged

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
