"""The weights of causes, from 0 to 1, by rules that several causes share.

A cgroup's OOM kill happens when its limit is full of memory that reclaim cannot free. So there are two groups
of causes. One names the memory that filled the limit (`filling`), the other names what kept reclaim from
freeing memory (`blocking`, `swap_room`). `analysis.explain.causes` has a module for each cause.
"""
