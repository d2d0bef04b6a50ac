"""The quality of a report in words."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.analysis.results.quality import SummedInterval
from tracer.enumerations import SUMMED_REASON
from tracer.render.words.quality_facts import TOTALS_EXACT, summed
from tracer.trace.history import thinning

BEGIN, END = pd.Timestamp("2026-02-03T04:05:06.789Z"), pd.Timestamp("2026-02-03T04:06:07.5Z")


def test_summed_history_is_named_as_the_reason() -> None:
    text = summed([SummedInterval(BEGIN, END, (thinning.REASON,))], TOTALS_EXACT)
    assert text == (
        "page-cache events from 04:05:06.789 to 04:06:07.500 UTC (older history is kept as sums): "
        "totals are exact"
    )


@pytest.mark.parametrize("reason", [*SUMMED_REASON.names[1:], thinning.REASON])
def test_summed_every_reason_is_worded(reason: str) -> None:
    text = summed([SummedInterval(BEGIN, END, (reason,))], TOTALS_EXACT)
    assert f"({reason})" not in text
