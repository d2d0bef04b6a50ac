"""Pods of a real containerd: the trace has the names of pods, containers and images that no longer exist."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.slowdown import SLOWDOWN
from support.waiting import wait_for

from tracer.analysis.trace import AnalysedTrace
from tracer.render.words.sigkill_words import sentence

pytestmark = pytest.mark.kernel

IMAGE = "docker.io/library/memcg-tracer-test:1"
LIMIT_BYTES = 48 << 20
WITHIN_S = 30.0 * SLOWDOWN
CRASH = "ulimit -v 409600; exec tail </dev/zero"  # should the limit not hold, this one protects the machine


def run_until_it_is_killed(runtime: Any, pod: Any, name: str, attempt: int = 0) -> str:
    """Return the id of a container that grew until it was killed, once its files are gone."""
    identity: str = runtime.run(pod, name, attempt, CRASH, LIMIT_BYTES)
    deadline = time.monotonic() + WITHIN_S
    while runtime.bundle(identity).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return identity


def names_at(trace: AnalysedTrace, path: str) -> list[str | None]:
    (row,) = trace.cgroups[trace.cgroups["path"] == path].to_dict("records")
    names = (row[name] for name in ("container", "pod", "namespace", "image"))
    return [name if isinstance(name, str) else None for name in names]


def environment(host: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "MEMCG_TRACER_HOST_ROOT": str(host), **more}


def test_killed_container_of_a_pod_has_the_names_of_its_files(
    runtime: Any, start_recorder: Callable[..., Any]
) -> None:
    """The pod and its sandbox have those of the pod; the cgroup of the pod is made before them."""
    uid = "1c2f3e4d-5b6a-7980-9abc-def012345678"
    recorder = start_recorder("-c", runtime.parent, env=environment(runtime.host))
    with runtime.pod("web-7d9f", "prod", uid) as pod:
        identity = run_until_it_is_killed(runtime, pod, "app")
    trace = AnalysedTrace(recorder.stop())
    above = f"{runtime.parent}/pod{uid}"
    assert names_at(trace, above) == [None, "web-7d9f", "prod", None]
    assert names_at(trace, f"{above}/{pod.sandbox_id}") == [None, "web-7d9f", "prod", None]
    assert names_at(trace, f"{above}/{identity}") == ["app", "web-7d9f", "prod", IMAGE]
    (report,) = trace.explain()
    owner = report.limit_owner
    assert (owner.container, owner.pod, owner.namespace, owner.image) == ("app", "web-7d9f", "prod", IMAGE)


def test_container_is_followed_by_its_name(runtime: Any, start_recorder: Callable[..., Any]) -> None:
    uid = "2c2f3e4d-5b6a-7980-9abc-def012345678"
    recorder = start_recorder("-c", "followed", env=environment(runtime.host))
    with runtime.pod("api-5c6b", "prod", uid) as pod:
        first, second = (run_until_it_is_killed(runtime, pod, "followed", attempt) for attempt in range(2))
    trace = AnalysedTrace(recorder.stop())
    above = f"{runtime.parent}/pod{uid}"
    for identity in (first, second):
        assert names_at(trace, f"{above}/{identity}") == ["followed", "api-5c6b", "prod", IMAGE]
    # The cgroup of a shim that kills what is left of a container is named too, as of every actor.
    rows = trace.cgroups[trace.cgroups["path"].str.startswith(above)]
    assert set(rows["path"]) == {f"{above}/{first}", f"{above}/{second}"}
    assert len(trace.oom) == 2


def test_failed_probe_of_a_container_deaf_to_sigterm_is_a_stop_that_took_too_long(
    runtime: Any, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", runtime.parent, env=environment(runtime.host))
    with runtime.pod("deaf-1f2e", "prod", "4c2f3e4d-5b6a-7980-9abc-def012345678") as pod:
        identity = runtime.run(pod, "app", 0, 'trap "" TERM; exec sleep 1000', LIMIT_BYTES)
        pid = runtime.pid_of(identity)
        wait_for(lambda: "sleep" in Path(f"/proc/{pid}/comm").read_text())
        runtime.stop(identity, 1)
    trace = AnalysedTrace(recorder.stop())
    (kill,) = (one for one in trace.sigkilled() if one.target.pid == pid)
    assert (kill.target.comm, kill.target.container) == ("sleep", "app")
    assert kill.sender is not None
    assert (kill.sender.comm, kill.parents[0].comm) == ("runc", "containerd-shim")
    assert kill.since_sigterm_s is not None
    assert 1 <= kill.since_sigterm_s < WITHIN_S
    said = sentence(kill)
    assert " after SIGTERM: a stop that took too long. Its cgroup used " in said
    assert "a failed liveness probe" in said


def test_container_without_files_has_the_names_of_the_cri_socket(
    runtime: Any, start_recorder: Callable[..., Any], tmp_path: Path
) -> None:
    """The recorder sees no file of the host, as in a pod that may not enter the root of process 1."""
    uid = "3c2f3e4d-5b6a-7980-9abc-def012345678"
    endpoint = f"unix://{runtime.socket}"
    with runtime.pod("db-0", "prod", uid) as pod:
        identity = runtime.run(pod, "postgres", 0, "exec sleep 1000", LIMIT_BYTES)
        recorder = start_recorder(
            "-c", runtime.parent, env=environment(tmp_path, CONTAINER_RUNTIME_ENDPOINT=endpoint)
        )
        recorder.wait_for(lambda: IMAGE in set(AnalysedTrace(recorder.path).cgroups["image"]))
        path = recorder.stop()
    trace = AnalysedTrace(path)
    above = f"{runtime.parent}/pod{uid}"
    assert names_at(trace, above) == [None, "db-0", "prod", None]
    assert names_at(trace, f"{above}/{pod.sandbox_id}") == [None, "db-0", "prod", None]
    assert names_at(trace, f"{above}/{identity}") == ["postgres", "db-0", "prod", IMAGE]


def test_container_of_nerdctl_has_the_image_of_containerds_own_service(
    runtime: Any, start_recorder: Callable[..., Any]
) -> None:
    """Its name is in a file, and its image in containerd's database alone."""
    with runtime.without_kubernetes("5d" * 32, "plain") as cgroup:
        recorder = start_recorder(
            "-c",
            runtime.parent,
            env=environment(runtime.host, CONTAINER_RUNTIME_ENDPOINT=f"unix://{runtime.socket}"),
        )
        recorder.wait_for(lambda: IMAGE in set(AnalysedTrace(recorder.path).cgroups["image"]))
        path = recorder.stop()
    assert names_at(AnalysedTrace(path), cgroup) == ["plain", None, "default", IMAGE]
