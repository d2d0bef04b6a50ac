from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.unset import unset_row

from tracer.analysis.core.lives import Places
from tracer.fleet.summary.workload import NOWHERE, NamedCgroups, image_name, owner_of, workload
from tracer.schema import TABLES
from tracer.trace.read.to_pandas import to_frame

SANDBOX = "4f1a6b0c9d2e"
DASHED = "3e1f0a5c-7b2d-4c19-8f60-9a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("pod", "owner"),
    [
        ("web-5d4f8c7b6d-x2k9p", "web"),
        ("web-api-66b6c48dd5-qv7zt", "web-api"),
        ("node-exporter-x7k2p", "node-exporter"),
        ("backup-28567890-zzx4k", "backup"),
        ("backup-1711111111-zzx4k", "backup"),
        ("postgres-0", "postgres"),
        ("postgres-main-12", "postgres-main"),
        ("debug", "debug"),
        ("my-redis", "my-redis"),
        ("-0", "-0"),
    ],
)
def test_owner_of_a_pod_is_its_name_without_what_the_controller_appended(pod: str, owner: str) -> None:
    assert owner_of(pod) == owner


def test_owner_of_a_static_pod_is_its_name_without_that_of_the_machine() -> None:
    assert owner_of("kube-apiserver-node-7", "node-7") == "kube-apiserver"
    assert owner_of("kube-apiserver-node-7", "node-8") == "kube-apiserver-node"  # as of a StatefulSet


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx"),
        ("docker.io/library/nginx:1.27", "nginx"),
        ("registry.example:5000/team/web:1.2@sha256:" + "ab" * 32, "team/web"),
        ("localhost/team/web", "team/web"),
        ("team/web:latest", "team/web"),
        ("sha256:" + "ab" * 32, ""),
        ("ab" * 32, ""),
        ("", ""),
    ],
)
def test_image_name_has_no_registry_tag_or_digest(image: str, name: str) -> None:
    assert image_name(image) == name


def test_workload_of_a_container_in_a_pod_is_its_owner_whatever_the_image() -> None:
    names = {"namespace": "shop", "pod": "web-5d4f8c7b6d-x2k9p", "image": "nginx"}
    assert workload("/kubepods/a", container="app", **names) == "shop/web/app"
    assert workload("/kubepods/a", **names) == "shop/web"


def test_workload_of_another_container_is_its_name_without_ordinal_else_its_image() -> None:
    assert workload("/docker/1", container="shop-web-2", image="team/web:3") == "shop-web"
    assert workload("/docker/1", container="brave_turing", image="team/web:3") == "team/web"
    assert workload("/docker/1", container="brave_turing7", image="sha256:" + "ab" * 32) == "brave_turing7"
    assert workload("/docker/1", image="team/web:3") == "team/web"
    assert workload("/docker/1", container="shop_web_1") == "shop_web"
    assert workload("/docker/1", container="-1") == "-1"


def test_workload_of_a_unit_has_no_instance_and_no_identifiers() -> None:
    assert workload("/system.slice/a", unit="nginx.service") == "nginx.service"
    assert workload("/system.slice/a", unit="backup@7.service") == "backup@.service"
    assert workload("/user.slice/a", unit="session-31.scope") == "session-*.scope"
    assert workload("/system.slice/a", unit="run-u12.service") == "run-u*.service"
    assert workload("/system.slice/a", unit=f"run-r{SANDBOX * 3}.scope") == "run-r*.scope"


def test_workload_of_a_path_has_stars_for_numbers_and_identifiers() -> None:
    assert workload(f"/docker/{SANDBOX * 5}") == "/docker/*"
    assert workload(f"/kubepods/burstable/pod{DASHED}/{SANDBOX}") == "/kubepods/burstable/pod*/*"
    slice_name = f"kubepods-pod{DASHED.replace('-', '_')}.slice"
    assert workload(f"/kubepods.slice/{slice_name}/cri-{SANDBOX * 5}.scope") == (
        "/kubepods.slice/kubepods-pod*.slice/cri-*.scope"
    )
    assert workload("/jobs/4711/decade") == "/jobs/*/decade"


def test_workload_of_no_cgroup_is_a_question_mark() -> None:
    assert workload(None) == workload("") == NOWHERE


@given(st.lists(st.none() | st.text(), min_size=6, max_size=6))
def test_workload_of_any_names_is_a_text(names: list[str | None]) -> None:
    cgroup, namespace, pod, container, image, unit = names
    found = workload(
        cgroup, namespace=namespace, pod=pod, container=container, image=image, unit=unit, host=namespace
    )
    assert found


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
