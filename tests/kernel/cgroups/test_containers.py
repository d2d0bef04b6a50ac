from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.cgroups.containers import (
    ContainerRef,
    Standing,
    identify,
    outermost_pod,
    qos_class,
    shown_name,
    standing,
)

ID = "4f2c9d1be0a73586" * 4
ID2 = "0123456789abcdef" * 4
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
UID_ = UID.replace("-", "_")
UID2 = "9a8b7c6d-5b6a-7980-9abc-def012345678"
STATIC_UID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", None),
        ("/", None),
        ("/system.slice", None),
        ("/process_api/2e5a47c025cbe94e900cd0fdcca2e73c", None),  # 32 digits are no container id
        (f"/docker/{ID[:63]}", None),
        # Docker
        (f"/docker/{ID}", ContainerRef("docker", ID)),
        (f"/docker/{ID}/system.slice/x", ContainerRef("docker", ID)),
        (f"/system.slice/docker-{ID}.scope", ContainerRef("docker", ID, unit=f"docker-{ID}.scope")),
        (f"/docker/{ID}/docker/{ID2}", ContainerRef("docker", ID2)),  # Docker in Docker
        (
            f"/system.slice/docker-{ID}.scope/docker/{ID2}/init",
            ContainerRef("docker", ID2, unit=f"docker-{ID}.scope"),
        ),
        (f"/custom_parent/{ID}", ContainerRef(None, ID)),  # --cgroup-parent says nothing of the runtime
        # containerd
        (f"/k8s.io/{ID}", ContainerRef("containerd", ID, namespace="k8s.io")),
        (f"/default/{ID}", ContainerRef("containerd", ID, namespace="default")),
        (f"/system.slice/nerdctl-{ID}.scope", ContainerRef("containerd", ID, unit=f"nerdctl-{ID}.scope")),
        (f"/system.slice:cri-containerd:{ID}", ContainerRef("containerd", ID)),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
            ContainerRef("containerd", ID, UID, unit="containerd.service"),
        ),
        # Kubernetes
        (f"/kubepods/burstable/pod{UID}/{ID}", ContainerRef(None, ID, UID)),
        (f"/kubepods/pod{UID}/{ID}", ContainerRef(None, ID, UID)),
        (f"/kubepods/besteffort/pod{STATIC_UID}/{ID}", ContainerRef(None, ID, STATIC_UID)),
        (f"/kubepods/burstable/pod{UID}", ContainerRef(pod_uid=UID)),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
            ContainerRef("containerd", ID, UID, unit=f"cri-containerd-{ID}.scope"),
        ),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope",
            ContainerRef("docker", ID, UID, unit=f"docker-{ID}.scope"),
        ),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
            ContainerRef(pod_uid=UID),
        ),
        # CRI-O
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container",
            ContainerRef("cri-o", ID, UID, unit=f"crio-{ID}.scope"),
        ),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", ContainerRef("cri-o", ID, UID)),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope",
            ContainerRef(pod_uid=UID, unit=f"crio-conmon-{ID}.scope"),
        ),
        # podman
        (
            f"/machine.slice/libpod-{ID}.scope/container",
            ContainerRef("podman", ID, unit=f"libpod-{ID}.scope"),
        ),
        (f"/libpod_parent/libpod-{ID}", ContainerRef("podman", ID)),
        (f"/libpod_parent/{ID2}/libpod-{ID}", ContainerRef("podman", ID)),  # in a pod
        (f"/libpod_parent/{ID2}", None),
        (f"/libpod_parent/{ID2}/conmon", None),
        (f"/machine.slice/libpod-conmon-{ID}.scope", ContainerRef(unit=f"libpod-conmon-{ID}.scope")),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
            ContainerRef("podman", ID, unit=f"libpod-{ID}.scope", user=1000),
        ),
        ("/user.slice/user-7.slice/user@7.service/app.slice", ContainerRef(unit="user@7.service", user=7)),
        # a pod in a node that is a container
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}", ContainerRef(pod_uid=UID)),
        (f"/docker/{ID}/kubelet/kubepods/pod{UID}/{ID2}", ContainerRef(None, ID2, UID)),
        (
            f"/machine.slice/libpod-{ID}.scope/container/kubelet.slice/kubelet-kubepods-pod{UID_}.slice",
            ContainerRef(pod_uid=UID, unit=f"libpod-{ID}.scope"),
        ),
        # other runtimes
        ("/lxc/web", ContainerRef("lxc", "web")),
        ("/lxc.payload.web/init.scope", ContainerRef("lxc", "web", unit="init.scope")),
        (
            f"/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/{STATIC_UID}-1234567890",
            ContainerRef(None, f"{STATIC_UID}-1234567890"),
        ),
        # systemd
        ("/system.slice/nginx.service", ContainerRef(unit="nginx.service")),
        ("/user.slice/user-0.slice/session-3.scope", ContainerRef(unit="session-3.scope")),
        (r"/system.slice/system-a\x2db.slice/a\x2db@1.service", ContainerRef(unit="a-b@1.service")),
        (r"/system.slice/gr\xc3\xbcn.service", ContainerRef(unit="grün.service")),
    ],
)
def test_identify_known_path_returns_container(path: str, expected: ContainerRef | None) -> None:
    assert identify(path) == expected


@pytest.mark.parametrize(
    ("path", "container", "pod", "shown"),
    [
        (f"/docker/{ID}", "web", None, "web"),
        (f"/kubepods/pod{UID}/{ID}", "web", "shop", "shop/web"),
        (f"/docker/{ID}", None, None, ID[:12]),
        (f"/system.slice/docker-{ID}.scope", None, None, f"docker-{ID[:12]}.scope"),
        ("/batch/nightly/", None, None, "nightly"),
        ("/", None, None, "/"),
    ],
)
def test_shown_name_has_no_long_id(path: str, container: str | None, pod: str | None, shown: str) -> None:
    assert shown_name(path, container, pod) == shown


@pytest.mark.parametrize(
    ("path", "below", "around"),
    [
        ("/system.slice/nginx.service", "", None),
        ("/lxc/217", "", None),
        ("/lxc/217/ns", "", None),
        ("/lxc/217/ns/system.slice/mail.service", "/system.slice/mail.service", None),
        ("/lxc.payload.web-lxc/init.scope", "/init.scope", None),
        (f"/lxc/217/ns/docker/{ID}", "", "217"),
        (f"/docker/{ID}/docker/{ID2}/init", "/init", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", "", None),
        (f"/machine.slice/libpod-{ID}.scope/container/a.slice", "/a.slice", None),
        (f"/kubepods/burstable/pod{UID}/{ID}", "", None),
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}", "", ID),
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID2}", "", ID),
    ],
)
def test_standing_names_path_inside_and_container_around(path: str, below: str, around: str | None) -> None:
    assert standing(path) == Standing(below, around)


@pytest.mark.parametrize(
    ("path", "container_id"),
    [
        (f"/kubepods/pod{UID}", None),
        (f"/kubepods/pod{UID}/{ID}/a.service", ID),
        (f"/kubepods/pod{UID}/{ID}/docker/{ID2}", ID),
        (f"/kubepods/pod{UID}/{ID}/kubepods/pod{UID2}/{ID2}", ID),
        (f"/kubepods/pod{UID}/kubepods/pod{UID2}/{ID2}", None),
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID2}", ID2),
    ],
)
def test_outermost_pod_ignores_names_that_a_container_gave(path: str, container_id: str | None) -> None:
    pod = outermost_pod(path)
    assert pod is not None
    assert (pod.pod_uid, pod.container_id) == (UID, container_id)


@pytest.mark.parametrize("path", ["", "/", f"/docker/{ID}", "/system.slice/a.service"])
def test_outermost_pod_without_a_pod_is_none(path: str) -> None:
    assert outermost_pod(path) is None


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*"/-_:.\\x", "docker", ID, UID, ".scope"])).map("".join)
)
def test_identify_any_string_never_raises(path: str) -> None:
    ref = identify(path)
    assert ref is None or ref != ContainerRef()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/kubepods/burstable/pod{UID}/{ID}", "Burstable"),
        (f"/kubepods/besteffort/pod{UID}", "BestEffort"),
        (f"/kubepods/pod{UID}/{ID}", "Guaranteed"),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope", "Guaranteed"),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice", "BestEffort"),
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID2}", "Burstable"),
        (
            f"/x/kubelet.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice",
            "Burstable",
        ),
        (f"/kubepods/pod{UID}/{ID}/kubepods/besteffort/pod{UID}", "BestEffort"),
        (f"/docker/{ID}", None),
        ("/kubepods.slice/kubepods-burstable.slice", None),
        (f"/machine.slice/libpod_pod_{ID}.slice", None),
    ],
)
def test_qos_class_is_that_of_the_innermost_pod(path: str, found: str | None) -> None:
    assert qos_class(path) == found
