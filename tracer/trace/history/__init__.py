"""The last minutes of a recording, kept in memory until a trace begins with them.

The modules:

    thinning — rows of an interval reduced to one of each group
    bases — the state of each cgroup when a trace begins in the middle of a recording
"""
