"""The endpoint for Prometheus: the state of each cgroup as metrics, and the kills by cause.

packaging — alert rules and a dashboard
kill_counters — OOM kills under labels that outlive their cgroups
cgroup_lines — the series of all cgroups, kept as text
http_server — the server, which no client can hold up
"""
