"""The memory of a process that runs, as seen from outside: its mappings by kind, and what its runtime shows.

smaps — /proc/PID/smaps, read within bounds
mapping_kinds — mappings in groups that a reader knows: heap, arenas, stacks, files
own_files — files that a process keeps in its /tmp
shown — what a runtime shows, as a number or a text
hsperfdata — the counters that a Java virtual machine keeps in a file
go_functions — the functions of a Go program by address
go_runtime — the numbers and the heap profile of the Go runtime
glibc_arenas — what is free inside of the heaps of malloc
process_anatomy — all of this about one process, with the options of Node.js and the titles of servers
"""
