"""The page cache as a cushion before a synthetic kill with known numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
from synthetic.memcg_kill import LIMIT, only_report

MIB = 1 << 20


def test_cushion_of_the_page_cache_experiment_is_exact_to_the_byte(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
    cushion = report.cushion
    assert cushion.cache_start_bytes == LIMIT
    assert cushion.cache_end_bytes == MIB
    assert cushion.evicted_bytes == 116 * MIB
    assert cushion.absorbed_bytes == 99 * MIB
    assert (cushion.refaulted_bytes, cushion.kernel_refaulted_bytes) == (0, 5 * 4096)
    # The 99th allocation of the second act took the cache below 2 MiB.
    assert cushion.exhausted_at == pd.Timestamp("2025-11-24T16:00:02.980000+00:00")
    assert report.time == pd.Timestamp("2025-11-24T16:00:03.600000+00:00")
    document = report.to_dict()
    assert document["time"] == "2025-11-24T16:00:03.600000+00:00"
    assert document["cushion"]["exhausted_at"] == "2025-11-24T16:00:02.980000+00:00"
