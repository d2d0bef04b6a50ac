from __future__ import annotations

from pathlib import Path

import pytest

from tracer.errors import TracerError, UsageError
from tracer.kernel import cgroupfs
from tracer.kernel.cgroupfs import Hierarchy
from tracer.kernel.containers import ContainerNames
from tracer.kernel.mounts import Mount

ID = "4f2c9d1be0a73586" * 4
ID2 = "4f2c9d2be0a73586" * 4
ENABLED = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t10\t1\n"


def mount(fs_type: str, point: Path, options: set[str], root: str = "/") -> Mount:
    return Mount(30, 20, (0, 30), root, str(point), fs_type, fs_type, frozenset(options))


def unified(point: Path, controllers: str) -> Mount:
    point.mkdir(parents=True)
    (point / "cgroup.controllers").write_text(controllers)
    return mount("cgroup2", point, {"rw", "nsdelegate"})


def test_v1(tmp_path: Path) -> None:
    mounts = [
        mount("cgroup", tmp_path / "cpu", {"rw", "cpu"}),
        mount("cgroup", tmp_path / "m", {"rw", "memory"}),
    ]
    assert cgroupfs.find_hierarchy(mounts, ENABLED) == Hierarchy(1, tmp_path / "m", "/")


def test_v2_although_proc_cgroups_lists_only_v1_controllers(tmp_path: Path) -> None:
    mounts = [unified(tmp_path / "u", "cpuset cpu io memory pids\n")]
    assert cgroupfs.find_hierarchy(mounts, "") == Hierarchy(2, tmp_path / "u", "/")


def test_hybrid_is_v1(tmp_path: Path) -> None:
    mounts = [unified(tmp_path / "u", "\n"), mount("cgroup", tmp_path / "m", {"rw", "memory"})]
    assert cgroupfs.find_hierarchy(mounts, ENABLED).version == 1


def test_a_containers_mount_begins_below_the_root() -> None:
    inside = Hierarchy(1, Path("/sys/fs/cgroup/memory"), "/docker/abc")
    assert inside.visible_path("/docker/abc") == "/"
    assert inside.visible_path("/docker/abc/d") == "/d"
    assert inside.visible_path("/docker/abcd") is None


@pytest.mark.parametrize(
    ("cgroups", "said"),
    [("memory\t0\t1\t0\n", "cgroup_disable=memory"), (ENABLED, "mount -t cgroup2"), ("", "mount -t cgroup2")],
)
def test_no_hierarchy_says_what_to_do(tmp_path: Path, cgroups: str, said: str) -> None:
    with pytest.raises(TracerError, match=said):
        cgroupfs.find_hierarchy([unified(tmp_path / "u", "cpu\n")], cgroups)


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        (1, "9:name=systemd:/\n4:cpu,memory:/process:with:colons\n0::/unified\n", "/process:with:colons"),
        (2, "4:cpu:/x\n0::/user.slice\n", "/user.slice"),
    ],
)
def test_own_path(version: int, text: str, expected: str) -> None:
    assert cgroupfs.own_path(Hierarchy(version, Path("/m"), "/"), text) == expected


def test_own_path_of_a_process_in_no_memory_cgroup() -> None:
    with pytest.raises(TracerError, match="no memory cgroup"):
        cgroupfs.own_path(Hierarchy(1, Path("/m"), "/"), "0::/\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    """A hierarchy of plain directories, with one container that has a name."""
    for path in (
        f"docker/{ID}/inner",
        f"docker/{ID2}",
        "system.slice/nginx.service",
        "a/web",
        "b/web",
        "odd[1]",
    ):
        (tmp_path / path).mkdir(parents=True)
    names = {ID: "shop-db"}
    monkeypatch.setattr(
        cgroupfs, "lookup_name", lambda ref: ContainerNames(names.get(ref.container_id or ""))
    )
    return Hierarchy(1, tmp_path, "/")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/", ["/"]),
        ("a", ["/a"]),
        ("/a/web", ["/a/web"]),
        ("a/web/", ["/a/web"]),
        ("web", ["/a/web", "/b/web"]),
        ("nginx.service", ["/system.slice/nginx.service"]),
        ("ngin*", ["/system.slice/nginx.service"]),
        ("/*/web", ["/a/web", "/b/web"]),
        ("system.slice/*", ["/system.slice/nginx.service"]),
        ("odd[1]", ["/odd[1]"]),
        (ID, [f"/docker/{ID}"]),
        (ID[:7], [f"/docker/{ID}"]),
        ("shop-db", [f"/docker/{ID}"]),
        ("shop-*", [f"/docker/{ID}"]),
    ],
)
def test_resolve(tree: Hierarchy, pattern: str, expected: list[str]) -> None:
    assert [tree.path(directory) for directory in cgroupfs.resolve(tree, pattern)] == expected


def test_resolve_takes_the_directory_itself(tree: Hierarchy) -> None:
    assert cgroupfs.resolve(tree, str(tree.mount / "a")) == [tree.mount / "a"]


@pytest.mark.parametrize("pattern", ["../..", "/etc", "/a/../../etc"])
def test_resolve_stays_below_the_mount(tree: Hierarchy, pattern: str) -> None:
    with pytest.raises(UsageError, match="no cgroup or container matches"):
        cgroupfs.resolve(tree, pattern)


@pytest.mark.parametrize(
    ("pattern", "namesake"),
    [("/nowhere", None), ("", "/"), ("/a/web", "/a/web"), ("/a/../b/", "/b"), ("/sys*/x", None)],
)
def test_a_path_of_another_hierarchy_is_refused(
    tree: Hierarchy,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    namesake: str | None,
) -> None:
    """A hybrid host: memory on v1, and a cgroup2 beside it with cgroups of the same names, or others."""
    point = tmp_path_factory.mktemp("cgroup2") / "unified"
    mounts = [unified(point, "hugetlb\n"), mount("cgroup", tree.mount, {"rw", "memory"})]
    monkeypatch.setattr(cgroupfs, "read_mounts", lambda: mounts)
    with pytest.raises(UsageError, match="cgroup v2 hierarchy without the memory controller") as caught:
        cgroupfs.resolve(tree, f"{point}{pattern}")
    said = str(caught.value)
    assert f"v1 at {tree.mount}" in said
    assert said.endswith(f"as -c {str(tree.directory(namesake))!r}" if namesake else "that one")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("nginx.servce", "near it: /system.slice/nginx.service"),
        ("shop-dx", f"near it: /docker/{ID}"),
        ("qqqqqq", "none with a name like it"),
        ("qqqqqq", "only while it runs"),
        ("4f2c9d", "ambiguous"),
        ("", "empty"),
        ("a\0b", "means nothing"),
    ],
)
def test_resolve_says_what_is_near(tree: Hierarchy, pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        cgroupfs.resolve(tree, pattern)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_hostile_names_are_escaped_in_messages(tree: Hierarchy) -> None:
    (tree.mount / "evil\x1b[31m\n").mkdir()
    with pytest.raises(UsageError) as caught:
        cgroupfs.resolve(tree, "evil\x1b[3")
    assert str(caught.value).isprintable()


def test_descendants_come_after_their_parents(tree: Hierarchy) -> None:
    paths = [tree.path(directory) for directory in cgroupfs.descendants(tree.mount / "docker")]
    assert paths == ["/docker", f"/docker/{ID}", f"/docker/{ID}/inner", f"/docker/{ID2}"]


@pytest.mark.kernel
@pytest.mark.vm
def test_an_id_leads_back_to_its_directory(memcg: Path) -> None:
    hierarchy = cgroupfs.memory_hierarchy()
    child = memcg / "child"
    child.mkdir()
    identity = cgroupfs.cgroup_id(child)
    assert cgroupfs.directory_of(hierarchy, identity) == child
    child.rmdir()
    assert cgroupfs.directory_of(hierarchy, identity) is None


@pytest.mark.kernel
def test_ids_that_never_were_lead_nowhere(memcg: Path) -> None:
    hierarchy = cgroupfs.memory_hierarchy()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for identity in (0, 2**63 - 1, 2**64 - 1):
        assert cgroupfs.directory_of(hierarchy, identity) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
