"""Trace directories of a fleet, and beside them what is in them: the answer that `fleet` must give."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from simulated_fleet.rewriting import Place, Recording

from tracer.lab.experiments import EXPERIMENTS

TRACES: Final = Path(__file__).parents[2] / "traces"
BEGIN_NS: Final = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp()) * 10**9
SCALES: Final = (1, 1, 2, 3, 5)
TRUTH: Final = "truth.json"

_DAY_NS: Final = 86_400 * 10**9
_RANDOM: Final = "bcdfghjklmnpqrstvwxz2456789"
_HASH: Final = "456789bcdf"


@dataclass(frozen=True)
class Program:
    """A workload: the recording that its traces are made from, and its names."""

    recording: str
    scale: int
    namespace: str
    owner: str
    container: str
    hosts: tuple[str, ...]

    @property
    def workload(self) -> str:
        """Return the name under which its runs are counted together."""
        return f"{self.namespace}/{self.owner}/{self.container}"


@dataclass(frozen=True)
class Copy:
    """One trace: its directory below the top, and what it holds."""

    directory: str
    host: str
    boot_id: str
    recording: str
    scale: int
    workload: str
    date: str
    cause: str | None
    kills: int
    limit_bytes: int


def write_fleet(
    top: Path, number: int, *, seed: int, hosts: int = 50, days: int = 7, workloads: int = 30, broken: int = 0
) -> dict[str, Any]:
    """Write that many traces into a new folder, the last `broken` of them damaged, and the truth beside
    them; return the truth.

    A trace is in `HOST/TIME-REASON-POD`, as `watch` names them. The same arguments give the same files.
    """
    chance = random.Random(seed)
    recordings = {name: Recording(TRACES / name) for name in EXPERIMENTS}
    programs = _programs(chance, workloads, hosts)
    boots = {host: _Boot(chance) for program in programs for host in program.hosts}
    copies, damaged = list[Copy](), list[str]()
    for index in range(number):
        program = chance.choice(programs)
        host = chance.choice(program.hosts)
        begin_ns = BEGIN_NS + int((index + chance.random()) * days * _DAY_NS / number)
        names = _names(chance, program, index)
        boot = boots[host]
        place = Place(host, boot.boot_id, boot.booted_ns, begin_ns, scale=program.scale, **names)
        recording = recordings[program.recording]
        copy = _copy(recording, program, place)
        recording.write(top / copy.directory, place)
        if index >= number - broken:
            _damage(top / copy.directory)
            damaged.append(copy.directory)
        else:
            copies.append(copy)
    truth = _truth(copies, damaged) | {"seed": seed}
    (top / TRUTH).write_text(json.dumps(truth, indent=1))
    return truth


class _Boot:
    """The last start of a host, before the first trace."""

    def __init__(self, chance: random.Random) -> None:
        self.boot_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        self.booted_ns = BEGIN_NS - chance.randrange(_DAY_NS, 30 * _DAY_NS)


def _programs(chance: random.Random, workloads: int, hosts: int) -> list[Program]:
    names = [f"node-{index:04}" for index in range(hosts)]
    kinds = list(EXPERIMENTS)
    found = []
    for index in range(workloads):
        kind = kinds[index % len(kinds)]
        found.append(
            Program(
                recording=kind,
                scale=chance.choice(SCALES),
                namespace=chance.choice(["shop", "search", "billing"]),
                owner=f"{kind}-{index}",
                container=chance.choice(["app", "worker", "sidecar"]),
                hosts=tuple(chance.sample(names, chance.randint(1, min(12, hosts)))),
            )
        )
    return found


def _names(chance: random.Random, program: Program, index: int) -> dict[str, Any]:
    """Return the names and ids of a new container."""
    end = "".join(chance.choices(_RANDOM, k=5))
    pod_hash = "".join(chance.choices(_HASH, k=9))
    return {
        "namespace": program.namespace,
        "pod": f"{program.owner}-{pod_hash}-{end}",
        "pod_uid": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "container": program.container,
        "container_id": f"{chance.getrandbits(256):064x}",
        "image": f"registry.example/{program.namespace}/{program.owner}:1.{index % 7}",
        "first_cgroup_id": (index + 1) << 24,
    }


def _copy(recording: Recording, program: Program, place: Place) -> Copy:
    decisions = set(recording.tables["oom"].column("kill_id").to_pylist())
    moment = datetime.fromtimestamp(place.begin_ns // 10**9, UTC)
    reason = "kill" if decisions else "request"
    return Copy(
        directory=f"{place.host}/{moment:%Y%m%dT%H%M%SZ}-{reason}-{place.pod}",
        host=place.host,
        boot_id=place.boot_id,
        recording=recording.name,
        scale=place.scale,
        workload=program.workload,
        date=f"{moment:%Y-%m-%d}",
        cause=EXPERIMENTS[recording.name].cause,
        kills=len(decisions),
        limit_bytes=EXPERIMENTS[recording.name].limit_bytes * place.scale,
    )


def _damage(folder: Path) -> None:
    """Cut a file of the trace in half, as a full disk does."""
    path = folder / "charge.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _truth(copies: list[Copy], damaged: list[str]) -> dict[str, Any]:
    kills = Counter[tuple[str, str, str]]()
    for copy in copies:
        if copy.kills:
            kills[str(copy.cause), copy.workload, copy.host] += copy.kills
    workloads = {
        name: {
            "runs": len(of_it),
            "kills": sum(copy.kills for copy in of_it),
            "limit_bytes": of_it[0].limit_bytes,
        }
        for name, of_it in _by_workload(copies)
    }
    return {
        "traces": len(copies),
        "broken": damaged,
        "hosts": dict(sorted(Counter(copy.host for copy in copies).items())),
        "kills": [
            {"cause": cause, "workload": workload, "host": host, "count": count}
            for (cause, workload, host), count in sorted(kills.items())
        ],
        "workloads": workloads,
        "copies": [asdict(copy) for copy in copies],
    }


def _by_workload(copies: list[Copy]) -> Iterator[tuple[str, list[Copy]]]:
    for name in sorted({copy.workload for copy in copies}):
        yield name, [copy for copy in copies if copy.workload == name]


def size_on_disk(top: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())
