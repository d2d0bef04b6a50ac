"""What follows from a trace: functions from DataFrames to DataFrames and frozen dataclasses.

`trace` has all of it at hand; `tracer.open` gives it. A room imports only from rooms above it in this list:

    results — the records of a post-mortem, as JSON and as DataFrames
    core — tables, look-ups, the ledger of charges, and the names of cgroups
    kernel_log — what the kernel log of a trace adds to its kills, and the kills that only the log has
    views — what the verbs draw: timeline, evictions, waits, reclaim
    explain — the cause of each kill, what would have prevented it, and what held where nothing was killed

`kernel_log` stands below `views`, since a kill that only the log has counts in every view.
"""
