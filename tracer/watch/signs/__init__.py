"""Signs of a kill in samples. `tracer.live.countdown` finds one more.

limit_hits — a cgroup hit its memory.max or memory.high
pressure — all tasks of a cgroup waited for memory
"""
