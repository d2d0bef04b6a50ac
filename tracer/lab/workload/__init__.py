"""Work of known kinds and amounts inside a cgroup.

`python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]...`, where STEP is one of

    read FILE...        read the files completely, into the page cache
    write FILE BYTES    write a new file and leave its pages dirty
    execute FILE TIMES  become the program FILE, a copy of the interpreter, and read its text, page by page
    leave DIR BYTES     mount a tmpfs at DIR for this process alone; a child fills a file in it and ends
    anon BYTES          touch this much private anonymous memory, page by page, and keep it
    rows BYTES          the same as anon, 70 % of it in one function and the rest in another, in turns
    shmem BYTES         the same with shared memory
    memfd BYTES         write this much into a file in memory (shmem that no process has mapped)
    mlock BYTES         the same as anon, with locked memory
    mlock_file FILE     map a file and lock it, part by part
    threads N           start N threads that wait (kernel stacks)
    files DIR N         make N empty files (slab: inodes and dentries)
    pipes BYTES         make pipes with this much memory for their buffer tables (slab, in use)
    page_tables BYTES   read zero pages so far apart that each needs its own page table
    sockets BYTES       send this much over TCP to this process, and receive nothing
    oom_group           set memory.oom.group, so that the kernel kills this whole cgroup (v2)
    high BYTES          set memory.high, above which the kernel slows the processes of this cgroup down (v2)
    cgroups NAME...     make cgroups below this one, and move to the first of them
    child NAME BYTES    fork a process that runs `anon BYTES` in cgroup NAME ("." is this one)
    crowd BYTES:ADJ...  fork a process for each, which sets its oom_score_adj and runs `anon BYTES`
    press BYTES         the same as anon, but only until a child of this process is killed
    cow BYTES:ADJ       the same as anon; a child with this oom_score_adj reads it; write it again
    segment BYTES N     map shared memory, and fork N processes that touch every N-th page each

Forked processes end with their parent, but the processes of `leave`, `cow` and `segment` end when their work
is done. "This cgroup" is the cgroup in which the process was started. Nothing is freed before the end, so
`anon` with more bytes than the limit allocates until it is killed, and so does `rows`. The number of bytes is
a ceiling that protects the machine if no kill comes. A pause follows each MiB (each thread, each file). With
`--barrier`, the process prints `start`, then `done STEP` after each step, and waits for a newline after each
of these lines: meanwhile the cgroup is quiet, and memory.stat can be read. Imports are few, because the
start-up is part of the measured work.

The steps import from this room:

    namespaces — a mount that no other process sees
"""
