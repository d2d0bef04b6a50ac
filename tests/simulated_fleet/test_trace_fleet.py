"""Traces of a fleet: the same for the same seed, and `explain` finds in each what the truth says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest
from simulated_fleet.rewriting import Place, Recording
from simulated_fleet.trace_fleet import BEGIN_NS, TRACES, TRUTH, write_fleet
from support.recorded import reports_of

import tracer
from tracer.errors import TraceError
from tracer.fleet.summary.workload import workload
from tracer.lab.experiments import EXPERIMENTS


def place(scale: int) -> Place:
    return Place(
        host="node-7",
        boot_id="c2a8c6e4-8f77-4d1e-9d50-0c7a4e1b1f00",
        booted_ns=BEGIN_NS - 10**15,
        begin_ns=BEGIN_NS,
        namespace="shop",
        pod="web-7d4b9c6f5-x2x9z",
        pod_uid="0d4f",
        container="app",
        container_id="ab" * 32,
        image="registry.example/web:1",
        scale=scale,
        first_cgroup_id=1 << 30,
    )


def digest(top: Path) -> str:
    files = sorted(path for path in top.rglob("*") if path.is_file())
    contents = hashlib.sha256()
    for path in files:
        contents.update(str(path.relative_to(top)).encode() + path.read_bytes())
    return contents.hexdigest()


@pytest.mark.parametrize(("scale", "name"), [*zip(cycle((1, 3)), EXPERIMENTS, strict=False)])
def test_copy_of_a_recording_has_its_cause_and_scaled_amounts(name: str, scale: int, tmp_path: Path) -> None:
    Recording(TRACES / name).write(tmp_path / "copy", place(scale))
    copy = tracer.open(tmp_path / "copy")
    for before, after in zip(reports_of(name), copy.explain(is_sized=scale == 1), strict=True):
        assert after.verdict.cause == before.verdict.cause == EXPERIMENTS[name].cause
        assert before.limit_owner.limit_bytes is not None
        assert after.limit_owner.limit_bytes == before.limit_owner.limit_bytes * scale
        assert before.composition.total
        assert after.composition.total == before.composition.total * scale
        assert after.time is not None and 0 <= after.time.value - BEGIN_NS < 60 * 10**9
        assert after.ktime_ns is not None and 0 <= after.ktime_ns - 10**15 < 60 * 10**9
        if scale == 1:
            assert (after.quality, after.composition) == (before.quality, before.composition)


def test_fleet_of_a_seed_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_fleet(tmp_path / folder, 4, seed=seed, hosts=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_traces_of_a_fleet_hold_what_the_truth_says(tmp_path: Path) -> None:
    truth = write_fleet(tmp_path, 12, seed=2, hosts=3, workloads=6, broken=2)
    assert json.loads((tmp_path / TRUTH).read_text()) == truth
    found = Counter[tuple[str, str, str]]()
    for copy in truth["copies"]:
        trace = tracer.open(tmp_path / copy["directory"])
        assert (trace.meta["host_name"], trace.meta["boot_id"]) == (copy["host"], copy["boot_id"])
        for kill in trace.explain(is_sized=False):
            owner = kill.limit_owner
            namespace = copy["workload"].partition("/")[0]
            name = workload(owner.cgroup, namespace=namespace, pod=owner.pod, container=owner.container)
            found[kill.verdict.cause, name, copy["host"]] += 1
    said = {(kill["cause"], kill["workload"], kill["host"]): kill["count"] for kill in truth["kills"]}
    assert found == said
    assert (truth["traces"], len(truth["broken"])) == (10, 2)
    assert len({cause for cause, *_ in said}) == 5
    assert {1, 2, 3} <= {*said.values()}


def test_damaged_traces_of_a_fleet_are_refused(tmp_path: Path) -> None:
    truth = write_fleet(tmp_path, 3, seed=2, broken=1)
    (damaged,) = truth["broken"]
    with pytest.raises(TraceError):
        tracer.open(tmp_path / damaged).charge  # noqa: B018
