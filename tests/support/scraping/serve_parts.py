"""A tally with its kills and their exposition, as `serve` has them, without a kernel."""

from __future__ import annotations

from typing import Any

from synthetic.live_rows import MIB, rows
from synthetic.sample_series import START_NS

from tracer.live.tally import Tally
from tracer.schema import UNLIMITED_BYTES
from tracer.serve.endpoint import Exposition
from tracer.serve.kill_counters import KillCounters


class Parts:
    """A tally, its kills and their exposition."""

    def __init__(self, *names: dict[str, Any], most_series: int = 1000) -> None:
        self.tally = Tally(4096, free_swap=lambda: 0)
        self.tally.take("cgroups", rows("cgroups", *names))
        self.kills = KillCounters(self.tally.names_of, 10)
        self.exposition = Exposition(self.tally, self.kills, most_series)

    def sample(self, number: int, usage: float, limit: int | None = None, **more: Any) -> None:
        """Take a sample of a cgroup whose usage is anonymous memory, in MiB."""
        own = UNLIMITED_BYTES if limit is None else limit * MIB
        anon = round(usage * MIB)
        sizes = {"usage_bytes": anon, "anon_bytes": anon, "file_bytes": 0}
        limits = {"limit_bytes": own, "effective_limit_bytes": own}
        given = {"cgroup_id": number, "source": "periodic", "time": START_NS} | sizes | limits | more
        self.tally.take("samples", rows("samples", given))
