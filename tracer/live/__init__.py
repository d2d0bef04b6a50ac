"""What is known of each cgroup now, from the rows of a recording that goes on.

sample_arrays — columns of a batch of samples as arrays
cgroup_states — what is known of each cgroup: a row of an array
alarm — what a sign becomes
countdown — the cushion: what may still be charged before a kill, and how soon it will be used up
flows — sums of the rows of a batch for each cgroup
tally — the latest sample and the sums of each cgroup
"""
