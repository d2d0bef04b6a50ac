"""The summary of a trace: a row a kill, a life of a cgroup, an evicting pair, and a minute.

A module imports only from modules above it in this list:

    summaries — the columns of the summary tables
    time_window — the part of time that a question is about, and which rows belong to it
    workload — the name under which the runs of one program are counted, and the cgroups with a life to tell
    origin — the trace that rows are from, its clocks, and the columns that say so
    life_rows — a row for each life of a cgroup, with what it shows of its need, and one for each minute
    overlaps — the summaries of several traces as one, in which nothing counts twice
    summarize — the tables of one trace
"""
