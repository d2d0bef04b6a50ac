"""`watch --events` with pods of a real containerd, and a server that answers as the API server does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.clusters.fake_api_server import FakeApiServer
from support.watcher import Watcher

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 48 << 20
CRASH = "ulimit -v 409600; tail </dev/zero; exec sleep 1000"
"""The first process of the container survives, so that the kubelet would report nothing."""


def test_pod_with_a_kill_gets_an_event_with_the_sentence_and_the_path(runtime: Any, tmp_path: Path) -> None:
    uid = "5c2f3e4d-5b6a-7980-9abc-def012345678"
    folder = tmp_path / "watch"
    folder.mkdir()
    with FakeApiServer(tmp_path) as server:
        setup = (
            "import pathlib\nfrom tracer.watch import pod_account\n"
            f"pod_account.ACCOUNT = pathlib.Path({str(server.account)!r})\n"
        )
        cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
        host = {"MEMCG_TRACER_HOST_ROOT": str(runtime.host), "MEMCG_TRACER_HOST": "node-1"}
        with Watcher(
            folder, "-c", runtime.parent, "--events",
            env=os.environ | cluster | host, is_soon_quiet=True, setup=setup,
        ) as watcher:  # fmt: skip
            watcher.wait_until_ready()
            with runtime.pod("web-7d9f", "prod", uid) as pod:
                runtime.run(pod, "app", 0, CRASH, LIMIT_BYTES)
                watcher.wait_for(lambda: server.events)
            [line] = watcher.stop()
    [((namespace, _), event)] = server.events.items()
    assert namespace == "prod"
    about = event["involvedObject"]
    assert (about["name"], about["uid"], about["fieldPath"]) == ("web-7d9f", uid, "spec.containers{app}")
    assert (event["reason"], event["count"]) == ("OOMKill", 1)
    [trace] = watcher.traces
    sentence, _, place = event["message"].partition(" Trace on ")
    assert place == f"node-1: {trace}"
    assert line == f"app: {sentence} {trace}"
    assert "tail (pid " in sentence
