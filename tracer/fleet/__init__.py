"""Many traces of many machines: a summary of each, and what follows from all of them.

A room imports only from rooms above it in this list:

    summary — a trace in a few rows: its kills, the lives of its cgroups, and who evicted whom
    sizing — which limit a workload should have, by our rule, the VPA's and KRR's
    reduction — from many traces and datasets to one answer, with Dask
    pushing — finished traces to where those of many machines are collected
"""
