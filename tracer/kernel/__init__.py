"""The running kernel: its types, its hooks, its cgroups, its log, and processes that we start on it.

process — commands held at a gate, priorities, calls given up in time, mappings, and titles
cgroups — the memory controller's hierarchy, memory files, mounts, containers, and a cgroup of our own
anatomy — the memory of a process by mapping, and what its runtime shows
naming — names of containers and pods, from files and sockets of this host
kmsg — OOM reports from a kernel log

Modules beside the rooms may use them: what the kernel offers, as BTF, hooks and features.
"""
