"""The memory limit of Robusta's KRR (Kubernetes Resource Recommender), by its strategy "simple".

From robusta-dev/krr, robusta_krr/strategies/simple.py (`calculate_memory_proposal`) and
robusta_krr/core/integrations/prometheus/metrics/memory.py (`MaxMemoryLoader`): the largest scraped
`container_memory_working_set_bytes` of any pod in 14 days. Kills count only with `--use-oomkill-data`.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np
import pandas as pd

from tracer.fleet.sizing.needs import column

BUFFER: Final = 0.15
KILL_BUFFER: Final = 0.25
HISTORY: Final = pd.Timedelta(days=14)


def krr_limit_bytes(
    samples: pd.DataFrame, kills: pd.DataFrame, now: pd.Timestamp, *, with_kills: bool = False
) -> int | None:
    """Return the limit in bytes, None without a sample. The rows have the columns of `vpa_limit_bytes`.

    `with_kills` is the option: a limit at which a pod was killed counts as well, with its own buffer.
    """
    largest = column(samples, "bytes")[(samples["time"] > now - HISTORY).to_numpy()]
    if not np.isfinite(largest).any():
        return None
    limit = float(np.nanmax(largest)) * (1 + BUFFER)
    killed_at = column(kills, "limit_bytes")[(kills["time"] > now - HISTORY).to_numpy()]
    if with_kills and np.isfinite(killed_at).any():
        limit = max(limit, float(np.nanmax(killed_at)) * (1 + KILL_BUFFER))
    return ceil(limit)
