from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy, Walked
from tracer.kernel.cgroups.mounts import Mount

ID = "4f2c9d1be0a73586" * 4
ID2 = "4f2c9d2be0a73586" * 4
ENABLED = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t10\t1\n"


def mount(fs_type: str, point: Path, options: set[str], root: str = "/") -> Mount:
    return Mount(30, 20, (0, 30), root, str(point), fs_type, fs_type, frozenset(options))


def unified(point: Path, controllers: str) -> Mount:
    point.mkdir(parents=True)
    (point / "cgroup.controllers").write_text(controllers)
    return mount("cgroup2", point, {"rw", "nsdelegate"})


def test_hierarchy_v1_is_found(tmp_path: Path) -> None:
    mounts = [
        mount("cgroup", tmp_path / "cpu", {"rw", "cpu"}),
        mount("cgroup", tmp_path / "m", {"rw", "memory"}),
    ]
    assert cgroupfs.find_hierarchy(mounts, ENABLED) == Hierarchy(1, tmp_path / "m", "/")


def test_cgroups_are_counted_by_the_kernel(tmp_path: Path) -> None:
    v1, v2 = Hierarchy(1, tmp_path, "/"), Hierarchy(2, tmp_path, "/")
    listed = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t7\t1\nmemory\t4\t1320\t1\n"
    assert cgroupfs.count_cgroups(v1, listed) == 1320
    assert cgroupfs.count_cgroups(v1, "") == cgroupfs.count_cgroups(v2) == 0, "it is not known"
    (tmp_path / "cgroup.stat").write_text("nr_descendants 41\nnr_dying_descendants 900\n")
    assert cgroupfs.count_cgroups(v2) == 42


def test_hierarchy_v2_with_v1_lines_in_proc_cgroups_is_found(tmp_path: Path) -> None:
    mounts = [unified(tmp_path / "u", "cpuset cpu io memory pids\n")]
    assert cgroupfs.find_hierarchy(mounts, "") == Hierarchy(2, tmp_path / "u", "/")


def test_hierarchy_hybrid_is_v1(tmp_path: Path) -> None:
    mounts = [unified(tmp_path / "u", "\n"), mount("cgroup", tmp_path / "m", {"rw", "memory"})]
    assert cgroupfs.find_hierarchy(mounts, ENABLED).version == 1


def test_hierarchy_container_mount_begins_below_root() -> None:
    inside = Hierarchy(1, Path("/sys/fs/cgroup/memory"), "/docker/abc")
    assert inside.visible_path("/docker/abc") == "/"
    assert inside.visible_path("/docker/abc/d") == "/d"
    assert inside.visible_path("/docker/abcd") is None


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [("memory\t0\t1\t0\n", "cgroup_disable=memory"), (ENABLED, "mount -t cgroup2"), ("", "mount -t cgroup2")],
)
def test_hierarchy_missing_raises_with_advice(tmp_path: Path, cgroups: str, expected: str) -> None:
    with pytest.raises(TracerError, match=expected):
        cgroupfs.find_hierarchy([unified(tmp_path / "u", "cpu\n")], cgroups)


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        (1, "9:name=systemd:/\n4:cpu,memory:/process:with:colons\n0::/unified\n", "/process:with:colons"),
        (2, "4:cpu:/x\n0::/user.slice\n", "/user.slice"),
    ],
)
def test_own_path_is_relative_to_mount(version: int, text: str, expected: str) -> None:
    assert cgroupfs.own_path(Hierarchy(version, Path("/m"), "/"), text) == expected


def test_own_path_without_memory_cgroup_raises() -> None:
    with pytest.raises(TracerError, match="no memory cgroup"):
        cgroupfs.own_path(Hierarchy(1, Path("/m"), "/"), "0::/\n")


def test_descendants_come_after_parents(tmp_path: Path) -> None:
    (tmp_path / "docker" / ID / "inner").mkdir(parents=True)
    (tmp_path / "docker" / ID2).mkdir()
    hierarchy = Hierarchy(1, tmp_path, "/")
    paths = [hierarchy.path(directory) for directory in cgroupfs.descendants(tmp_path / "docker")]
    assert paths == ["/docker", f"/docker/{ID}", f"/docker/{ID}/inner", f"/docker/{ID2}"]


def test_walk_finds_paths_ids_and_parents(tmp_path: Path) -> None:
    inner = tmp_path / "docker" / ID / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "docker" / "tasks").write_text("")
    (tmp_path / "docker" / "link").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    hierarchy = Hierarchy(1, tmp_path, "/")
    paths = ["/", "/docker", f"/docker/{ID}", f"/docker/{ID}/inner", "/\udcff"]
    ids = {path: hierarchy.directory(path).stat().st_ino for path in paths}
    above = dict(zip(paths[1:], ("/", *paths[1:3], "/"), strict=True))
    whole = [Walked(path, ids[path], ids.get(above.get(path, ""))) for path in paths]
    assert list(cgroupfs.walk(hierarchy)) == whole
    assert list(cgroupfs.walk(hierarchy, "/docker")) == whole[1:4]
    assert list(cgroupfs.walk(hierarchy, "/", b"doc")) == whole[:4]
    assert list(cgroupfs.walk(hierarchy, "/gone")) == []


@pytest.mark.kernel
@pytest.mark.vm
def test_walk_has_the_ids_of_stat(memcg: Path) -> None:
    """The kernel gives them with the names of directories."""
    hierarchy = cgroupfs.memory_hierarchy()
    inner = memcg / "child" / "inner"
    inner.mkdir(parents=True)
    directories = [memcg, inner.parent, inner]
    found = list(cgroupfs.walk(hierarchy, hierarchy.path(memcg)))
    assert [one.path for one in found] == [hierarchy.path(one) for one in directories]
    assert [one.id for one in found] == [one.stat().st_ino for one in directories]
    assert [one.parent_id for one in found] == [one.parent.stat().st_ino for one in directories]


@pytest.mark.kernel
def test_hierarchy_in_a_cgroup_namespace_begins_at_the_root(memcg: Path) -> None:
    """As in a pod: its namespace begins at its own cgroup, and the host's hierarchy is mounted."""
    code = (
        "from tracer.kernel.cgroups.cgroupfs import memory_hierarchy as found; import sys; "
        "h = found(); print(h.mount, h.root, h.visible_path(sys.argv[1]))"
    )
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec unshare -C "$0" "$@"'
    done = subprocess.run(
        ["sh", "-c", enter, sys.executable, "-c", code, "/docker/other"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(cgroupfs.memory_hierarchy().mount), "/", "/docker/other"]
