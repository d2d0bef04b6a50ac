from __future__ import annotations

from tracer.capture.rows.loss_rows import Losses


def test_a_row_has_what_was_lost_since_the_last_look() -> None:
    losses = Losses()
    first = losses.rows({"charge": 3, "oom": 0}, 1000)
    assert [(row["stream"], row["lost"]) for row in first] == [("charge", 3)]
    assert losses.rows({"charge": 3, "oom": 0}, 1000) == []
    second = losses.rows({"charge": 4, "oom": 2}, 1000)
    assert [(row["stream"], row["lost"]) for row in second] == [("charge", 1), ("oom", 2)]
    assert losses.counts == {"charge": 4, "oom": 2}
    assert first[0]["begin"] <= first[0]["time"] <= second[0]["begin"] <= second[0]["time"]
