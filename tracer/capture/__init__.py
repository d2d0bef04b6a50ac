"""A recording: BPF programs in the kernel, their records, and the rows of a trace.

Modules here put a recording together from these rooms. A room imports only from rooms above it in the list:

    bpf — BPF programs and their maps: compiled, loaded, attached, read
    learn — facts that the kernel's types do not show: positions of counters, costs of events
    symbols — names of the addresses in stacks
    rows — rows of the trace's tables, from records and from the kernel's files
    selection — the cgroups to trace, as they are made, renamed and removed
    contents — what is in memory now
"""
