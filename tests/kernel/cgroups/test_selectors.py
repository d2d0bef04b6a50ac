"""The cgroups that `-c` selects, now and later."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from tracer.errors import UsageError
from tracer.kernel.cgroups import selectors
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef
from tracer.kernel.cgroups.mounts import Mount
from tracer.kernel.cgroups.selectors import Selector, list_cgroups, parse_selector, parse_selectors

ID = "4f2c9d1be0a73586" * 4
ID2 = "4f2c9d2be0a73586" * 4
NAMES = {ID: "shop-db"}


def lookup(refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
    return {ref: ContainerNames(NAMES.get(ref.container_id or "")) for ref in refs}


@pytest.fixture
def tree(tmp_path: Path) -> Hierarchy:
    """Return a hierarchy of plain directories, with one named container."""
    for path in (
        f"docker/{ID}/inner",
        f"docker/{ID2}",
        "system.slice/nginx.service",
        "a/web",
        "b/web",
        "odd[1]",
    ):
        (tmp_path / path).mkdir(parents=True)
    return Hierarchy(1, tmp_path, "/")


def found(tree: Hierarchy, argument: str) -> list[str]:
    return list_cgroups(tree, lookup).find(parse_selector(tree, argument))


@pytest.mark.parametrize(
    ("argument", "expected"),
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
        ("inner", [f"/docker/{ID}/inner"]),
        ("not-yet", []),
        ("/a/not-yet", []),
        ("/etc", []),
        ("qqqqqq*", []),
    ],
)
def test_find_existing_cgroup_is_selected(tree: Hierarchy, argument: str, expected: list[str]) -> None:
    assert found(tree, argument) == expected


def test_parse_directory_and_glob_below_mount_are_paths(tree: Hierarchy) -> None:
    assert found(tree, str(tree.mount / "a")) == ["/a"]
    assert found(tree, str(tree.mount / "?" / "web")) == ["/a/web", "/b/web"]


@pytest.mark.parametrize("argument", ["../..", "/a/../../etc"])
def test_parse_path_out_of_hierarchy_raises(tree: Hierarchy, argument: str) -> None:
    with pytest.raises(UsageError, match="is not below"):
        parse_selector(tree, argument)


@pytest.mark.parametrize(
    ("argument", "path", "fits"),
    [
        ("/a/web", "/a/web", True),
        ("/a/web", "/a/web/below", False),
        ("/new/one", "/new/one", True),
        ("new", "/new", True),
        ("new", "/x/new", True),
        ("a", "/a", True),
        ("a", "/b/a", False),
        ("new-*", "/x/new-1", True),
        ("/x/*", "/x/new/deeper", True),
        ("/x/*", "/y/new", False),
        ("odd[1]", "/odd1", False),
    ],
)
def test_path_created_later_is_selected(tree: Hierarchy, argument: str, path: str, fits: bool) -> None:
    """An argument that is a directory now selects its path later as well, but no cgroup of that name
    elsewhere."""
    assert parse_selector(tree, argument).fits_path(path) is fits


@pytest.mark.parametrize(
    ("argument", "fits"),
    [("shop-db", True), ("shop-*", True), (ID, True), (ID[:6], True), (ID[:5], False), ("/docker/x", False)],
)
def test_container_created_later_is_selected(tree: Hierarchy, argument: str, fits: bool) -> None:
    assert parse_selector(tree, argument).fits_container(ID, "shop-db") is fits


def test_container_without_name_is_selected_by_id() -> None:
    assert not Selector("shop-db", "shop-db", is_path=False).fits_container(ID, None)
    assert not Selector("shop*", "shop*", is_path=False).fits_container(ID, None)


def test_name_with_byte_and_name_with_escape_differ(tree: Hierarchy) -> None:
    byte, text = os.fsdecode(b"name-\xff"), r"name-\xff"
    for name in (byte, text):
        (tree.mount / "a" / name).mkdir()
    assert found(tree, byte) == [f"/a/{byte}"]
    assert found(tree, text) == [f"/a/{text}"]
    assert found(tree, f"/a/{byte}") == [f"/a/{byte}"]
    assert found(tree, f"/a/{text}") == [f"/a/{text}"]


@pytest.mark.parametrize(
    ("argument", "namesake"),
    [("/nowhere", None), ("", "/"), ("/a/web", "/a/web"), ("/a/../b/", "/b"), ("/sys*/x", None)],
)
def test_parse_path_of_other_hierarchy_raises(
    tree: Hierarchy,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    namesake: str | None,
) -> None:
    """A hybrid host has memory on v1, and a cgroup2 with cgroups of the same names or of others."""
    point = tmp_path_factory.mktemp("cgroup2") / "unified"
    point.mkdir()
    (point / "cgroup.controllers").write_text("hugetlb\n")
    mounts = [
        Mount(30, 20, (0, 30), "/", str(place), kind, kind, frozenset({"rw", option}))
        for kind, place, option in (("cgroup2", point, "nsdelegate"), ("cgroup", tree.mount, "memory"))
    ]
    monkeypatch.setattr(selectors, "read_mounts", lambda: mounts)
    with pytest.raises(UsageError, match="cgroup v2 hierarchy without the memory controller") as caught:
        parse_selector(tree, f"{point}{argument}")
    message = str(caught.value)
    assert f"v1 at {tree.mount}" in message
    assert message.endswith(f"as -c {str(tree.directory(namesake))!r}" if namesake else "that one")


@pytest.mark.parametrize(
    ("argument", "expected"), [("4f2c9d", "ambiguous"), ("", "empty"), ("a\0b", "nothing")]
)
def test_parse_invalid_argument_raises(tree: Hierarchy, argument: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        parse_selectors(tree, [argument], lookup)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("nginx.servce", "near it: /system.slice/nginx.service"),
        ("shop-dx", "near it: shop-db"),
        ("qqqqqq", "none of the 12 cgroups has a name like it"),
    ],
)
def test_near_similar_names_are_listed(tree: Hierarchy, argument: str, expected: str) -> None:
    listing = list_cgroups(tree, lookup)
    assert listing.near(parse_selector(tree, argument)) == expected


def test_near_hostile_names_are_escaped(tree: Hierarchy) -> None:
    (tree.mount / "evil\x1b[31m\n").mkdir()
    assert list_cgroups(tree, lookup).near(parse_selector(tree, "evil\x1b[3")).isprintable()
