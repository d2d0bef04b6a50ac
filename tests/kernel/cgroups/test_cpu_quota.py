"""The CPU quota of a process is the least one of its cgroup and those above."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.kernel.cgroups.cpu_quota import least_quota, quota_cpus
from tracer.kernel.cgroups.mounts import Mount

V1 = frozenset({"rw", "cpu", "cpuacct"})


def mount(point: Path, fs_type: str, options: frozenset[str] = V1, root: str = "/") -> Mount:
    return Mount(1, 0, (0, 30), root, str(point), fs_type, "cgroup", options)


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("_", ".", 1)).write_text(content + "\n")


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        ("max 100000", "max 100000", None),
        ("5000 100000", "max 100000", 0.05),
        ("max 100000", "20000 100000", 0.2),
        ("150000 100000", "20000 100000", 0.2),
        ("damaged", "20000 100000", 0.2),
    ],
)
def test_quota_of_v2_is_the_least_on_the_way_up(
    own: str, above: str, expected: float | None, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "b", cpu_max=own)
    write(tmp_path / "a", cpu_max=above)
    write(tmp_path / "other", cpu_max="1000 100000")
    assert least_quota([mount(tmp_path, "cgroup2")], "0::/a/b\n") == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("5000", 0.05)])
def test_quota_of_v1_is_that_of_the_hierarchy_of_cpu(
    quota: str, expected: float | None, tmp_path: Path
) -> None:
    write(tmp_path / "cpu" / "a", cpu_cfs_quota_us=quota, cpu_cfs_period_us="100000")
    write(tmp_path / "cpuset" / "a", cpu_cfs_quota_us="1000", cpu_cfs_period_us="100000")
    mounts = [
        mount(tmp_path / "cpuset", "cgroup", frozenset({"cpuset"})),
        mount(tmp_path / "cpu", "cgroup"),
    ]
    own = "3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/\n"
    assert least_quota(mounts, own) == expected


def test_cgroup_that_the_mount_does_not_show_has_no_quota(tmp_path: Path) -> None:
    write(tmp_path, cpu_max="5000 100000")
    assert least_quota([mount(tmp_path, "cgroup2", root="/docker/4f")], "0::/system\n") is None
    assert least_quota([mount(tmp_path, "cgroup2")], "0::/../other\n") is None
    assert least_quota([mount(tmp_path, "cgroup2", root="/docker/4f")], "0::/docker/4f\n") == 0.05


def test_quota_of_this_process_is_none_or_positive() -> None:
    assert (quota_cpus() or 1) > 0
