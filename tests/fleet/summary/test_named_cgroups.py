"""The names of cgroups, and which of them are a container's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from synthetic.unset import unset_row

from tracer.analysis.core.lives import Places
from tracer.fleet.summary.named_cgroups import NamedCgroups
from tracer.schema import TABLES
from tracer.trace.read.to_pandas import to_frame

ID = "4f2a" * 16
POD = "web-5d4f8c7b6d-x2k9p"


def named(*rows: dict[str, Any]) -> NamedCgroups:
    table = pa.Table.from_pylist([unset_row("cgroups") | row for row in rows], schema=TABLES["cgroups"])
    cgroups = to_frame(table)
    trace: Any = SimpleNamespace(cgroups=cgroups, places=Places(cgroups), meta={"host_name": "node-7"})
    return NamedCgroups(trace)


def test_container_is_its_own_cgroup_and_not_those_below_it() -> None:
    of_container = {"container": "app", "container_id": ID, "pod": POD, "namespace": "shop"}
    names = named(
        {"cgroup_id": 1, "path": "/kubepods", "version": 2},
        {"cgroup_id": 2, "path": f"/kubepods/pod7/{ID}", "image": "team/web:1", **of_container},
        {"cgroup_id": 3, "path": f"/kubepods/pod7/{ID}/init", **of_container},
    )
    assert [names.is_container(number) for number in (1, 2, 3, 9)] == [False, True, False, False]
    assert [names.is_inside_container(number) for number in (1, 2, 3, 9)] == [False, False, True, False]
    row = names.row(2)
    assert row["workload"] == "shop/web/app"
    assert (row["pod"], row["image"], row["container_id"]) == (POD, "team/web:1", ID)
    assert (row["cgroup"], row["cgroup_id"]) == (f"/kubepods/pod7/{ID}", 2)


def test_container_whose_name_came_late_has_the_one_of_its_path() -> None:
    path = f"/docker/{ID}"
    names = named(
        {"cgroup_id": 2, "path": path, "container_id": ID},
        {"cgroup_id": 5, "path": path, "container_id": ID, "container": "shop-web-2"},
    )
    assert names.row(2)["container"] == "shop-web-2"
    assert names.row(2)["workload"] == names.row(5)["workload"] == "shop-web"


def test_unit_and_static_pod_have_their_names() -> None:
    names = named(
        {"cgroup_id": 4, "path": "/system.slice/backup@7.service", "unit": "backup@7.service"},
        {"cgroup_id": 5, "path": f"/kubepods/x/{ID}", "container_id": ID, "container": "api"}
        | {"pod": "kube-apiserver-node-7", "namespace": "kube-system"},
    )
    assert names.row(4)["workload"] == "backup@.service"
    assert names.row(5)["workload"] == "kube-system/kube-apiserver/api"


def test_cgroup_that_is_not_in_the_trace_has_its_id() -> None:
    names = named({"cgroup_id": 4, "path": "/a"})
    assert (names.row(9)["cgroup"], names.row(9)["cgroup_id"], names.row(9)["workload"]) == ("id:9", 9, "?")
    assert (names.row(None)["cgroup"], names.row(None)["workload"]) == (None, "?")
