"""The container of the DaemonSet, with its capabilities, mounts and restrictions, run by Docker.

Docker gives it what a container runtime of Kubernetes gives: seccomp's default profile, a cgroup namespace,
and no devices of the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.slowdown import SLOWDOWN
from support.waiting import wait_for

import tracer

pytestmark = pytest.mark.kernel

TOP = Path(__file__).parents[3]
POD = yaml.safe_load((TOP / "docs/deploy/kubernetes/daemonset.yaml").read_text())["spec"]["template"]["spec"]
RECORDER = POD["containers"][0]
IMAGE = "memcg-tracer-mounted"
ARCHIVE = os.environ.get("MEMCG_TRACER_IMAGE")
"""Loading it takes a minute, so only `make image-check` sets the variable."""

TRACES, CACHE = "/var/lib/memcg-tracer", "/var/cache/memcg-tracer"
WITHIN_S = 60 * SLOWDOWN
ASK = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9755/metrics", timeout=20).read().decode())
"""


def image_without_files() -> bytes:
    """Return a root of links and empty directories: the programs of this machine are mounted into it."""
    image = BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        for name in ("bin", "sbin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name in ("usr", "tmp", "var/lib", "var/cache", "var/log"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return image.getvalue()


def mounts(hostpaths: dict[str, Path]) -> Iterator[str]:
    """Yield the options for the mounts of the pod; `hostpaths` replaces directories of the host."""
    sources = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in POD["volumes"]}
    for mount in RECORDER["volumeMounts"]:
        target, source = mount["mountPath"], sources[mount["name"]]
        if source is None:
            yield from ("--tmpfs", target)
            continue
        mode = "ro" if mount.get("readOnly") else "rw"
        yield from ("-v", f"{hostpaths.get(source, source)}:{target}:{mode}")


def programs_mounted() -> Iterator[str]:
    """Yield the options that mount the interpreter, BCC and this checkout."""
    for path in dict.fromkeys(("/usr", str(TOP), sys.prefix, sys.base_prefix)):
        if not Path(path).is_relative_to("/usr") or path == "/usr":
            yield from ("-v", f"{path}:{path}:ro")


def restrictions() -> Iterator[str]:
    """Yield the options for the security context of the pod."""
    context = RECORDER["securityContext"]
    for capability in context["capabilities"]["drop"]:
        yield from ("--cap-drop", capability)
    for capability in context["capabilities"]["add"]:
        if capability in HELD_HERE:
            yield from ("--cap-add", capability)
    if context["readOnlyRootFilesystem"]:
        yield "--read-only"
    if not context["allowPrivilegeEscalation"]:
        yield from ("--security-opt", "no-new-privileges")
    if POD["hostPID"]:
        yield from ("--pid", "host")
    memory = RECORDER["resources"]["limits"]["memory"].removesuffix("i").lower()
    yield from ("--cgroupns", "private", "--network", "none", "--memory", memory)


def held_here() -> set[str]:
    """Return the capabilities of the pod that this machine itself has: Docker gives no others."""
    status = Path("/proc/self/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    numbers = {"SYS_RESOURCE": 24, "SYS_PTRACE": 19, "SYSLOG": 34, "PERFMON": 38, "BPF": 39}
    return {name for name, number in numbers.items() if bounding >> number & 1}


HELD_HERE = held_here()


@pytest.fixture(params=["mounted", "built"])
def in_pod(request: pytest.FixtureRequest, engine: Any, disk_dir: Path) -> Any:
    """Return `in_pod(*arguments)`, which gives the options of `docker run` for the recorder's container.

    It runs this checkout and the programs of this machine, `mounted` into an empty image, or the image
    that `make image-check` has `built`.
    """
    # Docker makes directories that are missing on the host, so only that of the cgroups is the host's own.
    own = {TRACES: disk_dir / "traces", CACHE: disk_dir / "cache"}
    own |= {log: disk_dir / Path(log).name for log in ("/var/log/containers", "/var/log/pods")}
    for folder in own.values():
        folder.mkdir(mode=0o755)
    options = [*mounts(own), *restrictions(), "-e", "MEMCG_TRACER_HOST=node-7"]
    if request.param == "built":
        if ARCHIVE is None:
            pytest.skip("make image-check builds the image and runs this")
        subprocess.run(["docker", "load", "-q", "-i", ARCHIVE], env=engine.env, check=True)
        return lambda *arguments: (*options, "memcg-tracer:built", *arguments)
    engine.docker("import", "-", IMAGE, stdin=image_without_files())
    options += [*programs_mounted(), "-e", f"PYTHONPATH={TOP}", "-e", "PYTHONDONTWRITEBYTECODE=1"]
    return lambda *words: (*options, "--entrypoint", sys.executable, IMAGE, "-m", "tracer", *words)


def test_kill_of_a_container_is_recorded_by_the_pod(engine: Any, in_pod: Any, disk_dir: Path) -> None:
    with running(engine, in_pod(*RECORDER["args"])) as recorder:

        def goes_on() -> bool:
            return bool(engine.inspect(recorder)["State"]["Running"])

        def told() -> str:
            return logs(engine, recorder)

        wait_for(lambda: "metrics at" in logs(engine, recorder), goes_on=goes_on, told=told)
        python = engine.inspect(recorder)["Path"].replace("/usr/local/bin/memcg-tracer", "python3")
        scraped = engine.docker("exec", recorder, python, "-c", ASK)
        assert "memcg_tracer_usage_bytes{" in scraped
        script = "x=a; while :; do x=$x$x; done"
        engine.run("memcg-tracer-greedy", script, "--rm", ok=False)
        wait_for(lambda: list((disk_dir / "traces").glob("*-kill-*/oom*")), goes_on=goes_on, told=told)
        wait_for(lambda: "was killed" in logs(engine, recorder), goes_on=goes_on, told=told)
    traces = [tracer.open(path) for path in (disk_dir / "traces").glob("*-kill-*")]
    reports = [(trace, report) for trace in traces for report in trace.explain()]
    # The pod records every kill of the machine.
    [(trace, report)] = [one for one in reports if "/docker/" in (one[1].limit_owner.cgroup or "")]
    assert report.victims[0].comm == "sh"
    assert report.limit_owner.limit_bytes == 100 << 20
    assert trace.meta["host_name"] == "node-7"
    assert list((disk_dir / "cache").iterdir()), "the compiled programs are kept for the next start"


def test_doctor_in_the_pod_says_what_is_missing(engine: Any, in_pod: Any) -> None:
    done = engine.docker("run", "--rm", *in_pod("doctor", "--json"))
    found = json.loads(done)
    assert found["can_record"], found["checks"]
    missing = {check["name"]: check for check in found["checks"] if check["state"] not in ("ok", "unknown")}
    assert missing["kernel log"]["cost"]
    assert "namespaces" not in missing
    assert "none can be made" in missing["memory cgroups"]["detail"]
    lacking = {name for name in missing if name.startswith("CAP_")}
    assert lacking - {"CAP_SYS_RESOURCE"} == {"CAP_DAC_READ_SEARCH", "CAP_SYS_NICE", "CAP_SYS_ADMIN"}
    assert ("CAP_SYS_RESOURCE" in lacking) is ("SYS_RESOURCE" not in HELD_HERE)


@contextlib.contextmanager
def running(engine: Any, options: tuple[str, ...]) -> Iterator[str]:
    """Run a container, and stop it as the kubelet does."""
    name = "memcg-tracer-recorder"
    engine.docker("run", "-d", "--name", name, *options)
    try:
        yield name
        engine.docker("stop", "-t", "30", name)
        assert engine.inspect(name)["State"]["ExitCode"] == 0, logs(engine, name)
    finally:
        engine.docker("rm", "-f", name)


def logs(engine: Any, container: str) -> str:
    """Return what a container has printed, on stdout and stderr."""
    command = ["docker", "logs", container]
    done = subprocess.run(
        command, env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout
