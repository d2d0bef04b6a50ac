"""The kubectl command that gives a running pod another memory limit.

In-place resize needs Kubernetes 1.33, and kubectl 1.32 for `--subresource resize`. A smaller limit without a
restart needs 1.34 (kubernetes/kubernetes pull request 133012). The limit of a pod as a whole,
`spec.resources`, is beta since 1.34; a resize of it is alpha in 1.35, and beta in 1.36.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.outcome import PodLimit
from tracer.kernel.cgroups.containers import identify, qos_class, standing

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")
_UID_OF_STATIC: Final = re.compile(r"[0-9a-f]{32}")
"""The kubelet gives a static pod a hash as its uid (pkg/kubelet/config/common.go, `applyDefaults`). The API
server refuses to resize its mirror pod."""
_UNITS: Final = ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"), (1, ""))


def pod_limit(trace: TraceTables, cgroup_id: int) -> PodLimit | None:
    """Return the pod or container of Kubernetes whose own limit a cgroup has.

    None for any other cgroup, for one that a container made inside itself, and for a static pod. None also if
    a name is not known or is one that Kubernetes does not accept (RFC 1123): a trace may have any names.
    """
    path, names = trace.places.label_of(cgroup_id), trace.places.named_container_of(cgroup_id)
    ref = identify(path)
    if ref is None or ref.pod_uid is None or names is None or standing(path).below:
        return None
    if _UID_OF_STATIC.fullmatch(ref.pod_uid):
        return None
    container = None if ref.container_id is None else names.name or ""
    is_valid = (
        _LABEL.fullmatch(names.namespace or "")
        and _SUBDOMAIN.fullmatch(names.pod or "")
        and (container is None or _LABEL.fullmatch(container))
    )
    if not is_valid:
        return None
    return PodLimit(names.namespace or "", names.pod or "", container, qos_class(path))


def command(pod: PodLimit, limit_bytes: int) -> tuple[str, ...] | None:
    """Return the arguments of the command that sets the limit; None if a resize cannot set one.

    A resize must keep the QoS class: a request equals its limit in a Guaranteed pod, and a BestEffort pod
    has neither (apis/core/validation: ValidatePodResize).
    """
    if pod.qos_class == "BestEffort":
        return None
    spec: dict[str, Any] = {"resources": resources(pod, limit_bytes)}
    if pod.container is not None:
        spec = {"containers": [{"name": pod.container, **spec}]}
    patch = json.dumps({"spec": spec}, separators=(",", ":"))
    where = ("kubectl", "patch", "pod", pod.pod, "-n", pod.namespace)
    return *where, "--subresource", "resize", "--patch", patch


def resources(pod: PodLimit, limit_bytes: int) -> dict[str, dict[str, str]]:
    """Return the `resources` of a container or pod with this limit, which keep its QoS class."""
    kinds = ("requests", "limits") if pod.qos_class == "Guaranteed" else ("limits",)
    return {kind: {"memory": quantity(limit_bytes)} for kind in kinds}


def quantity(size_bytes: int) -> str:
    """Return a size as Kubernetes writes it, exactly: `300Mi`, or `314572801` if no unit divides it."""
    return next(f"{size_bytes // unit}{name}" for unit, name in _UNITS if size_bytes % unit == 0)
