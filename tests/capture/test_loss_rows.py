"""Rows of `loss`, from the counts of several parts of the recorder."""

from __future__ import annotations

from collections import Counter

from tracer.capture.pipeline import LossRows


def test_loss_rows_count_losses_since_the_last_look() -> None:
    rings, others = Counter({"charge": 3, "oom": 0}), Counter({"samples": 0})
    losses = LossRows(lambda: rings, lambda: others)
    first = losses.take(1000)
    assert [(row["stream"], row["lost"]) for row in first] == [("charge", 3)]
    assert losses.take(1000) == []
    rings.update(charge=1, oom=2)
    others.update(samples=7)
    second = losses.take(1000)
    assert [(row["stream"], row["lost"]) for row in second] == [("charge", 1), ("oom", 2), ("samples", 7)]
    assert losses.counts == {"charge": 4, "oom": 2, "samples": 7}
    assert first[0]["begin"] <= first[0]["time"] <= second[0]["begin"] <= second[0]["time"]


def test_losses_of_one_stream_from_two_counters_are_summed() -> None:
    losses = LossRows(lambda: {"charge": 3}, lambda: {"charge": 4})
    assert [(row["stream"], row["lost"]) for row in losses.take(0)] == [("charge", 7)]
