"""The memory of a process that runs, as seen from outside: its mappings by kind, and what its runtime shows.

smaps — /proc/PID/smaps, read within bounds
mapping_kinds — mappings in groups that a reader knows: heap, arenas, stacks, files
own_files — files that a process keeps in its /tmp
hsperfdata — the counters that a Java virtual machine keeps in a file
process_anatomy — all of this about one process
"""
