"""The base of every analysis: columns of tables, look-ups, names, and levels of memory.

Modules here import from these, and each of these only from those above it:

    columns — from pandas columns to NumPy arrays, and limits as the kernel has them
    rows — rows of a table by key, a batch at a time, those of some cgroups, or read as arrays
    lookups — processes, stacks and reports of the kernel log, by id or time
    lives — the cgroups that had one name, one after the other
    gaps — the times in which a trace does not have everything
    page_cache — the events of the page cache in little memory
    evicted — evictions and refaults by cgroup and time
"""
