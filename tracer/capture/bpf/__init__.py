"""BPF programs and their maps: compiled, loaded, attached, read.

syscall — bpf(2)
perf_event — perf_event_open(2): kprobes
hooks — the hooks that the running kernel offers, and the choice among them
compiled — the programs compiled for one kernel by a child process, and kept on disk
"""
