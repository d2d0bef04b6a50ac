"""What samples show before a kill, beside `tracer.live.countdown`.

limit_hits — a cgroup hit its memory.max or memory.high
pressure — all tasks of a cgroup waited for memory
"""
