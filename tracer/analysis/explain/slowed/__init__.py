"""Whether the work of a cgroup that lived went on, and whose memory.high slowed it."""
