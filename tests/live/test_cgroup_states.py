from __future__ import annotations

import numpy as np

from tracer.live.cgroup_states import CgroupStates

KIND = np.dtype([("count", "i8"), ("ring", "i8", 4)])


def test_rows_keep_their_values_while_others_come() -> None:
    states = CgroupStates(KIND, (-1, 5))
    places = states.places(np.array([11, 12, 11]))
    assert places[0] == places[2] != places[1]
    states.rows["count"][places[:2]] = [1, 2]
    states.places(np.arange(100, 400))
    assert states.rows["count"][states.places(np.array([12, 11]))].tolist() == [2, 1]
    (place,) = states.places(np.array([399]))
    assert states.rows["count"][place] == -1
    assert states.rows["ring"][place].tolist() == [5, 5, 5, 5]


def test_forgotten_rows_are_fresh_and_used_again() -> None:
    states = CgroupStates(KIND, (-1, 5))
    for generation in range(500):
        ids = np.arange(generation * 10, generation * 10 + 10)
        places = states.places(ids)
        assert (states.rows["count"][places] == -1).all()
        states.rows["count"][places] = generation
        states.forget([*ids.tolist(), 999_999])
    assert len(states) == 0
    assert len(states.rows) == 16
