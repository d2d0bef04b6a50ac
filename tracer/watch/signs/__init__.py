"""What samples show before a kill.

sample_arrays — columns of a batch of samples as arrays
cgroup_states — what is known of each cgroup: a row of an array
alarm — what a sign becomes
limit_hits — a cgroup hit its memory.max or memory.high
cushion_sizes — what may still be charged before a kill
pressure — all tasks of a cgroup waited for memory
countdown — the cushion will be used up within seconds
"""
