"""The cgroups that exist when a recording begins."""

from __future__ import annotations

from pathlib import Path

from tracer.capture.selection.traced_cgroups import list_cgroups_below
from tracer.kernel.cgroups.cgroupfs import Hierarchy


def test_list_cgroups_below_returns_each_cgroup_once_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    hierarchy, gone = Hierarchy(2, tmp_path, "/"), tmp_path / "gone" / "child"
    ids = {path: path.stat().st_ino for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
    below = [(tmp_path / "a" / "b", ids[tmp_path / "a" / "b"], ids[tmp_path / "a"])]
    assert list_cgroups_below(hierarchy, [tmp_path / "a" / "b", gone]) == below
    whole = [(tmp_path, ids[tmp_path], None), (tmp_path / "a", ids[tmp_path / "a"], ids[tmp_path]), *below]
    assert list_cgroups_below(hierarchy, [tmp_path, tmp_path / "a"]) == whole
