"""The summary of a trace: a row a kill, a life of a cgroup, an evicting pair, and a minute.

A module imports only from modules above it in this list:

    summaries — the columns of the summary tables
    workload — the name under which the runs of one program are counted together
"""
