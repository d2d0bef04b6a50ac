"""Verbs that print a file to install beside another program: a shell, systemd, Prometheus, Grafana."""
