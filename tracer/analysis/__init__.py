"""The analysis of a trace: functions from DataFrames to DataFrames and frozen dataclasses.

The module `trace` has what analyses read: the object in which `tracer.open` looks. A room imports only from
rooms above it in this list:

    results — the records of a post-mortem, as JSON and as DataFrames
    core — tables, look-ups, the ledger of charges, and the names of cgroups
    kernel_log — the kernel log of a trace: its additions to recorded kills, and the kills that only it has
    views — the views that verbs draw: timeline, evictions, waits, reclaim
    explain — the cause of each kill, its prevention, and the distance of other cgroups to their limits
    whatif — the same run at other limits: its outcome, and what it would read again

`views` is below `kernel_log`, because a kill that only the log has counts in every view.
"""
