"""A process that runs experiments of the lab, one after the other: `python -m soak.lane NAME SEED PAUSE_S`.

Each runs in a cgroup of its own, under no recorder of its own. A line of JSON is printed for each. With
PAUSE_S = "loop", a process of one cgroup is killed every two seconds instead. SIGTERM ends it, and leaves
nothing behind.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tracer.kernel.cgroups.cgroupfs import descendants, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.memory_files import read_oom_kills
from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.run import what_lacks
from tracer.lab.scratch import scratch_directory

_WITHIN_S: Final = 90.0
_LOOP_S: Final = 2.0
_LOOP_BYTES: Final = 23 << 20
MARK: Final = "MEMCG_TRACER_SOAK"
"""The environment variable with the pid of the soak: it marks its processes, and is in its cgroups' names."""


def name_of(cgroup: str) -> str | None:
    """Return the experiment of a cgroup's path, or None: it is not ours."""
    found = re.fullmatch(rf"/memcg-tracer-\d+-{_prefix()}-[a-z]\d+-([a-z-]+)(?:/.*)?", cgroup)
    return found and found[1]


def _prefix() -> str:
    return f"soak{os.environ[MARK]}"


def deadly() -> list[Experiment]:
    """Return the experiments that end in a kill, and that this machine can run."""
    return [one for one in EXPERIMENTS.values() if one.cause is not None and what_lacks(one) is None]


def main(lane: str, seed: str, pause: str) -> int:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if pause == "loop":
            _loop(lane)
        else:
            _at_random(lane, random.Random(int(seed)), float(pause))
    except KeyboardInterrupt:
        return 0
    return 0


def _at_random(lane: str, chance: random.Random, pause_s: float) -> None:
    number = 0
    while True:
        order = deadly()
        chance.shuffle(order)
        for experiment in order:
            time.sleep(chance.uniform(0, pause_s))
            number += 1
            _run(experiment, f"{_prefix()}-{lane}{number}-{experiment.name}")


def _run(experiment: Experiment, name: str) -> None:
    began_s = time.time()
    with (
        scratch_directory(Path("/var/tmp")) as scratch,
        experiment.prepare(scratch) as place,
        ephemeral_cgroup(name, experiment.limit_bytes, 0) as cgroup,
    ):
        status = _work(cgroup, experiment.command(place))
        version = memory_hierarchy().version
        kills = sum(read_oom_kills(one, version) for one in descendants(cgroup))
    _tell(cgroup, began_s, status, kills)


def _loop(lane: str) -> None:
    with ephemeral_cgroup(f"{_prefix()}-{lane}0-anon", _LOOP_BYTES, 0) as cgroup:
        due_s = time.monotonic()
        version, before = memory_hierarchy().version, 0
        while True:
            began_s = time.time()
            command = [sys.executable, "-S", "-c", "held = []\nwhile True: held.append(bytearray(1 << 20))"]
            status = _work(cgroup, command)
            kills = read_oom_kills(cgroup, version)
            _tell(cgroup, began_s, status, kills - before)
            before = kills
            due_s += _LOOP_S
            time.sleep(max(0.0, due_s - time.monotonic()))


def _work(cgroup: Path, command: list[str]) -> int | None:
    enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
    with subprocess.Popen(["sh", "-c", enter, str(cgroup), *command], stdin=subprocess.DEVNULL) as work:
        try:
            return work.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            work.kill()


def _tell(cgroup: Path, began_s: float, status: int | None, kills: int) -> None:
    path = f"/{cgroup.relative_to(memory_hierarchy().mount)}"
    told = {"cgroup": path, "began_s": began_s, "ended_s": time.time(), "status": status, "kills": kills}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
