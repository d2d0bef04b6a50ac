"""The endpoint for Prometheus: the state of each cgroup as metrics, and the kills by cause.

packaging — alert rules and a dashboard
kill_counters — OOM kills under labels that outlive their cgroups
line_templates — lines of metrics, as prometheus_client writes them, to fill in
cgroup_lines — the series of all cgroups, kept as text
exposition — all metric families of a moment as text
http_server — the server, which no client can hold up
"""
