"""The analysis of a trace: functions from DataFrames to DataFrames and frozen dataclasses.

The module `trace` has all of it as methods of the object that `tracer.open` returns. A room imports only
from rooms above it in this list:

    results — the records of a post-mortem, as JSON and as DataFrames
    core — tables, look-ups, the ledger of charges, and the names of cgroups
    kernel_log — the kernel log of a trace: what it adds to kills, and the kills that only it has
    views — the views that verbs draw: timeline, evictions, waits, reclaim
    explain — the cause of each kill, what would have prevented it, and how near to their limits the others
    came

`kernel_log` stands below `views`, since a kill that only the log has counts in every view.
"""
