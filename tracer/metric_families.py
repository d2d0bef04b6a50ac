"""The metric families that `serve` returns and `export --to openmetrics` writes: one table for both.

Families about a cgroup are the metrics of `tracer.quantities`; the others are listed here.

Names, units and labels are an interface: dashboards and alert rules of users contain them. A label has the
name that cAdvisor gives it, if cAdvisor has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tracer.quantities import METRICS, Metric, Quantity

PREFIX: Final = "memcg_tracer_"

PLACE_LABELS: Final = ("id", "name", "namespace", "pod", "container")
"""The labels of a cgroup, as in cAdvisor: its path, then the names that the container runtime gives it (""
for a missing name): the container's name, the pod's namespace and name, and the container's name in the pod.
"""

KILL_LABELS: Final = PLACE_LABELS[1:]
"""The labels of a kill: they outlive the cgroup. The `name` of a cgroup without a container is its systemd
unit, else its path."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family.

    `name` is without `PREFIX`, and without the `_total` of a counter's samples. `unit` is the unit of
    OpenMetrics, which ends the name; "": it has no unit. `labels` are all labels, in order.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        """Return the name of the family, as in its TYPE line."""
        return PREFIX + self.name

    @property
    def sample_name(self) -> str:
        """Return the name of its samples."""
        return self.full_name + ("_total" if self.kind == "counter" else "")


def _family(quantity: Quantity, metric: Metric) -> Family:
    labels = (*PLACE_LABELS, metric.label) if metric.label else PLACE_LABELS
    unit = quantity.unit if metric.name.endswith(f"_{quantity.unit}") else ""  # OpenMetrics asks for that
    absent = f"; absent: {quantity.absent}" if quantity.absent else ""
    words = f"{quantity.meaning}{metric.detail}{absent}."
    kind: Literal["gauge", "counter"] = "gauge" if quantity.kind == "level" else "counter"
    return Family(metric.name, kind, unit, labels, words[0].upper() + words[1:])


FAMILIES: Final = (
    *(_family(quantity, metric) for quantity, metric in METRICS),
    Family(
        "oom_kills_seen",
        "counter",
        "",
        KILL_LABELS,
        "Kills of the OOM killer, counted at once, before their cause is known.",
    ),
    Family(
        "oom_kills",
        "counter",
        "",
        (*KILL_LABELS, "cause"),
        "Kills of the OOM killer, by cause; without the id of the cgroup, so that they outlive it.",
    ),
    Family(
        "sigkills",
        "counter",
        "",
        (*KILL_LABELS, "sender"),
        "Processes that SIGKILL ended, but not for the OOM killer, by the sender's name; empty: the kernel.",
    ),
    Family(
        "pod_events",
        "counter",
        "",
        ("result",),
        "Events of Kubernetes on pods with a kill (watch --events), by what became of them: sent, dropped.",
    ),
    Family(
        "cgroups_left_out",
        "gauge",
        "",
        (),
        "Cgroups without series, or with usage alone, because there would be too many series.",
    ),
    Family("lost_records", "counter", "", ("stream",), "Records of the kernel that the tracer lost."),
    Family("tracer_cpu_seconds", "counter", "seconds", (), "Processor time of the tracer itself."),
)
"""The families, in the order in which they are written."""

FAMILY_BY_NAME: Final = {family.name: family for family in FAMILIES}

OUTCOMES: Final = ("freed", "nothing")
"""The values of the label `outcome`: whether an attempt freed any page."""


def place_labels(
    *, path: str, container_id: str | None, container: str | None, pod: str | None, namespace: str | None
) -> tuple[str, ...]:
    """Return the values of `PLACE_LABELS` for a cgroup. Its names may be any text."""
    return path, *_labels(container if pod is None else container_id, container, pod, namespace)


def kill_labels(
    *, path: str, container: str | None, pod: str | None, namespace: str | None, unit: str | None
) -> tuple[str, ...]:
    """Return the values of `KILL_LABELS` for the cgroup that had the kill. Its names may be any text."""
    return _labels(container or (None if pod else unit or path), container, pod, namespace)


def _labels(
    name: str | None, container: str | None, pod: str | None, namespace: str | None
) -> tuple[str, str, str, str]:
    return name or "", namespace or "", pod or "", (container or "") if pod else ""
